# SPDX-License-Identifier: Apache-2.0
"""What is told about nodes: names of images, their information, their counters.

The answers are dicts with QAPI's member names; their types are in the schema
(BlockDeviceInfo, ImageInfo, BlockStats).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from blockyard.changes.options import reported
from blockyard.permission import Role
from blockyard.request import Op

if TYPE_CHECKING:
    from blockyard.dirtybitmap import DirtyBitmap
    from blockyard.graph import Graph
    from blockyard.node import Node

__all__ = ["block_stats", "device_info", "full_options", "image_info", "node_filename"]

_STORAGE = Role.DATA | Role.METADATA | Role.FILTERED
_MAX_IOV = 1024
_PAGE = 4096


def device_info(graph: Graph, node: Node, image: dict[str, Any]) -> dict[str, Any]:
    """QAPI BlockDeviceInfo, given the node's :func:`image_info`."""
    info: dict[str, Any] = {
        "file": image["filename"],
        "node-name": node.name,
        "ro": node.read_only,
        "drv": node.type.name,
        "backing_file_depth": _backing_depth(node),
        "children": [
            {"child": child.name, "node-name": child.node.name}
            for child in reversed(node.children.values())
        ],
        "active": node.active,
        "encrypted": bool(image.get("encrypted", False)),
        "detect_zeroes": node.detect_zeroes,
        "image": image,
        "cache": {
            "writeback": True,
            "direct": node.cache_direct,
            "no-flush": node.cache_no_flush,
        },
        "write_threshold": _signed(graph.carrier.threshold(node)),
    }
    for name in ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"):
        info[name] = 0
    if "backing" in node.children:
        info["backing_file"] = node_filename(node.children["backing"].node)
    if node.bitmaps:
        info["dirty-bitmaps"] = [_bitmap(each) for each in reversed(node.bitmaps.values())]
    return info


def _bitmap(bitmap: DirtyBitmap) -> dict[str, Any]:
    """QAPI BlockDirtyInfo."""
    info = {
        "name": bitmap.name,
        "count": bitmap.count,
        "granularity": bitmap.granularity,
        "recording": bitmap.recording,
        "busy": bitmap.busy,
        "persistent": bitmap.persistent,
    }
    return {**info, "inconsistent": True} if bitmap.inconsistent else info


async def image_info(node: Node, *, flat: bool = True) -> dict[str, Any]:
    """QAPI ImageInfo; without ``flat`` the backing chain is nested in it."""
    info: dict[str, Any] = {
        "filename": node_filename(node),
        "format": node.type.name,
        "virtual-size": node.length,
        "dirty-flag": False,
        "limits": _limits(node),
    }
    if (size := await _allocated_size(node)) is not None:
        info["actual-size"] = size
    if cluster := _cluster_size(node):
        info["cluster-size"] = cluster
    info.update(await node.driver.image_info())
    if not flat and (child := node.children.get("backing")):
        info["backing-image"] = await image_info(child.node, flat=False)
    return {name: value for name, value in info.items() if value is not None}


def node_filename(node: Node) -> str:
    """A name that opens the same image: plain if there is one, else ``json:{...}``."""
    exact = node.driver.exact_filename() or _name_from_child(node)
    if exact is not None:
        return exact
    from blockyard.qmp.json import dumps

    return f"json:{dumps(full_options(node))}"


def full_options(node: Node) -> dict[str, Any]:
    """The options that open the same image again, children inside."""
    exact = node.driver.exact_filename()
    by_name = exact is not None and hasattr(node.options.u, "filename")
    options = {"filename": exact} if by_name else node.driver.strong_options()
    tree = {"driver": node.type.name, **options}
    for child in node.children.values():
        tree[child.name] = full_options(child.node)
    return {name: tree[name] for name in reported(tree)}


def _name_from_child(node: Node) -> str | None:
    """A format on a file goes by the file's name unless options change what it shows."""
    child = next((c for c in node.children.values() if c.role & Role.PRIMARY), None)
    if node.type.kind != "format" or child is None or child.node.type.kind != "protocol":
        return None
    return None if node.driver.strong_options() else child.node.driver.exact_filename()


def _signed(value: int) -> int:
    # The command takes a uint64 and the query answers an int.
    return value - (1 << 64) if value >> 63 else value


def _backing_depth(node: Node) -> int:
    depth = 0
    while child := node.children.get("backing"):
        node = child.node
        depth += 1
    return depth


def _cluster_size(node: Node) -> int:
    while not node.limits.cluster_size:
        below = [c.node for c in node.children.values() if c.role & Role.FILTERED]
        if not below:
            return 0
        node = below[0]
    return node.limits.cluster_size


async def _allocated_size(node: Node) -> int | None:
    """What the driver says, or else what its storage children say together; iterative."""
    total, known, waiting = 0, False, [node]
    while waiting:
        each = waiting.pop()
        size = await each.driver.allocated_size()
        if size is not None:
            total, known = total + size, True
        else:
            waiting += [c.node for c in each.children.values() if c.role & _STORAGE]
    return total if known else None


def _limits(node: Node) -> dict[str, int]:
    own = node.limits
    below = [child.node.limits for child in node.children.values()]
    every = [own, *below]
    transfers = [each.max_transfer for each in every if each.max_transfer]
    iovs = [each.max_iov for each in every if each.max_iov]
    info = {
        "request-alignment": own.request_alignment,
        "max-discard": own.max_discard,
        "discard-alignment": own.discard_alignment,
        "max-write-zeroes": own.max_write_zeroes,
        "write-zeroes-alignment": own.write_zeroes_alignment,
        "opt-transfer": max(each.optimal_transfer for each in every),
        "max-transfer": min(transfers, default=0),
    }
    alignment = max(each.memory_alignment for each in every)
    return {name: value for name, value in info.items() if value} | {
        "max-iov": min(iovs, default=_MAX_IOV),
        "min-mem-alignment": alignment,
        "opt-mem-alignment": max(alignment, _PAGE),
    }


# -- counters

#: QAPI's word in the names of counters, and the operation it counts.
_KINDS = {"rd": Op.READ, "wr": Op.WRITE, "flush": Op.FLUSH, "unmap": Op.DISCARD}


def block_stats(graph: Graph, node: Node) -> dict[str, Any]:
    """QAPI BlockStats of the node and those below it."""
    top = _entry(graph, node)
    waiting = [(node, top)]
    while waiting:
        each, entry = waiting.pop()
        primary = next((c for c in each.children.values() if c.role & Role.PRIMARY), None)
        for name, child in (("parent", primary), ("backing", each.children.get("backing"))):
            if child is not None:
                entry[name] = _entry(graph, child.node)
                waiting.append((child.node, entry[name]))
    return top


def _entry(graph: Graph, node: Node) -> dict[str, Any]:
    entry: dict[str, Any] = {"node-name": node.name, "stats": _counters(graph, node)}
    specific = node.driver.statistics()
    if specific is not None:
        entry["driver-specific"] = {"driver": node.type.name, **specific}
    return entry


def _counters(graph: Graph, node: Node) -> dict[str, Any]:
    raw = graph.carrier.statistics(node)
    info: dict[str, Any] = {
        "wr_highest_offset": raw.write_highest,
        "account_invalid": False,
        "account_failed": False,
        "timed_stats": [],
    }
    for word in ("rd", "wr", "zone_append", "flush", "unmap"):
        op = raw.op[_KINDS[word]] if word in _KINDS else None
        info |= _of_kind(word, op)
    if raw.last_access_ns:
        info["idle_time_ns"] = max(0, time.monotonic_ns() - raw.last_access_ns)
    return info


def _of_kind(word: str, op: Any) -> dict[str, int]:
    counters = {
        f"{word}_operations": op.done if op else 0,
        f"{word}_total_time_ns": op.total_ns if op else 0,
        f"failed_{word}_operations": op.failed if op else 0,
        f"invalid_{word}_operations": op.invalid if op else 0,
    }
    if word != "flush":
        counters[f"{word}_bytes"] = op.bytes if op else 0
        counters[f"{word}_merged"] = op.merged if op else 0
    return counters
