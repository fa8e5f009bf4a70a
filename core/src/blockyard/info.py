# SPDX-License-Identifier: Apache-2.0
"""What is told about nodes: how they stand, and their counters.

The answers are dicts with QAPI's member names; their types are in the schema
(BlockDeviceInfo, BlockStats).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from blockyard.changes.topology import backing_below
from blockyard.permission import Role
from blockyard.request import Op

if TYPE_CHECKING:
    from blockyard.dirtybitmap import DirtyBitmap
    from blockyard.graph import Graph
    from blockyard.imageinfo import Images
    from blockyard.node import Node

__all__ = ["block_stats", "device_info"]


async def device_info(graph: Graph, node: Node, images: Images, *, flat: bool) -> dict[str, Any]:
    """QAPI BlockDeviceInfo; ``flat`` leaves the backing chain out."""
    image = await images.info(node, flat=flat)
    info: dict[str, Any] = {
        "file": image["filename"],
        "node-name": node.name,
        "ro": node.read_only,
        "drv": node.type.name,
        "backing_file_depth": 0 if flat else len(list(backing_below(node))),
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
        info["backing_file"] = images.filename(node.children["backing"].node)
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


def _signed(value: int) -> int:
    # The command takes a uint64 and the query answers an int.
    return value - (1 << 64) if value >> 63 else value


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
