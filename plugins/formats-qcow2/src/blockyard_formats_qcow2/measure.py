# SPDX-License-Identifier: Apache-2.0
"""How large a new image would be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from blockyard import bitmaps
from blockyard.errors import InvalidOption
from blockyard.imagework import Measure
from blockyard.permission import ALL, Perm
from blockyard.schema import visit
from blockyard_formats_qcow2.encryption import luks
from blockyard_formats_qcow2.header import MAX_L1_BYTES
from blockyard_formats_qcow2.newimage import plan_for
from blockyard_formats_qcow2.schema import BlockdevCreateOptionsQcow2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blockyard.node import Node
    from blockyard_formats_qcow2.header import Header

__all__ = ["full_size", "measure"]


async def measure(options: Mapping[str, Any], source: Node | None) -> Measure:
    """The size of an image with these members of BlockdevCreateOptionsQcow2.

    ``source`` is what would be copied into it, and gives the size.

    :raises BlockyardError: with QEMU's text.
    """
    given = dict(options)
    if source is not None:
        given["size"] = -(-source.length // 512) * 512
    visited = visit(BlockdevCreateOptionsQcow2, {"file": "", "size": 0, **given})
    plan = plan_for(visited)
    header, cluster = plan.header, plan.header.cluster_size
    size = -(-header.size // cluster) * cluster
    if -(-size // header.l1_covered) * 8 > MAX_L1_BYTES:
        raise InvalidOption("The image size is too large (try using a larger cluster size)")
    extra = 0
    if visited.encrypt is not None and str(visited.encrypt.format) == "luks":
        extra = -(-luks().header_length(visited.encrypt.u) // cluster) * cluster
    data = size
    if plan.preallocation not in ("falloc", "full"):
        data = await _data_bytes(source, cluster, backing=visited.backing_file is not None)
    whole = full_size(header, size) + extra
    return Measure(
        required=whole - size + data,
        fully_allocated=whole,
        bitmaps=_bitmap_bytes(source, cluster) if header.version >= 3 else None,
    )


async def _data_bytes(source: Node | None, cluster: int, *, backing: bool) -> int:
    """Bytes in clusters that have data in the source; 0 without one."""
    if source is None:
        return 0
    if backing:
        # Nobody knows how much of it the backing chain shares.
        return -(-source.length // cluster) * cluster
    graph = source.graph
    root = await graph.attach_root(source, Perm.CONSISTENT_READ, ALL)
    total, at, counted = 0, 0, 0
    try:
        while at < source.length:
            status = await root.access.block_status(at, source.length - at)
            end = at + status.bytes
            if status.data and not status.zero:
                first = max(at // cluster * cluster, counted)
                counted = -(-end // cluster) * cluster
                total += max(counted - first, 0)
            at = end
    finally:
        await graph.detach_root(root)
    return total


def full_size(header: Header, size: int) -> int:
    """Bytes of an image with ``size`` bytes of data, all allocated; whole clusters."""
    cluster, entry = header.cluster_size, header.l2_entry_bytes
    per_table = cluster // entry
    tables = -(-(size // cluster) // per_table)
    l2 = tables * cluster
    l1 = -(-tables // (cluster // 8)) * cluster
    clusters = (cluster + l2 + l1 + size) // cluster
    return clusters * cluster + _refcount_clusters(header, clusters) * cluster


def _refcount_clusters(header: Header, clusters: int) -> int:
    """Clusters of the refcount table and its blocks, which count themselves as well."""
    per_block = header.cluster_size * 8 // header.refcount_bits
    per_table = header.cluster_size // 8
    found = -1
    blocks = table = 0
    while found != blocks + table:
        found = blocks + table
        blocks = -(-(clusters + blocks + table) // per_block)
        table = -(-blocks // per_table)
    return found


def _bitmap_bytes(source: Node | None, cluster: int) -> int | None:
    """Bytes for the source's persistent bitmaps; None if it cannot have any."""
    if source is None or source.type.name != "qcow2":
        return None
    total = names = 0
    for bitmap in bitmaps.persistent(source):
        clusters = -(-bitmap.serialised_bytes // cluster)
        total += (clusters + -(-clusters * 8 // cluster)) * cluster
        names += -(-(24 + len(os.fsencode(bitmap.name))) // 8) * 8
    return total + -(-names // cluster) * cluster
