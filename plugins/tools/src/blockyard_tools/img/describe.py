# SPDX-License-Identifier: Apache-2.0
"""What is told about an image, as text for people."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from blockyard_tools.sizes import human_size, size_and_bytes
from blockyard_tools.tree import tree_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["described", "snapshot_table"]


def described(info: dict[str, Any]) -> str:
    """QAPI BlockGraphInfo as qemu-img prints it, without a line's end at the end."""
    return "\n".join(_graph(info, "", 0))


def _graph(info: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    indent = " " * (4 * depth)
    for line in _node(info, protocol=depth > 0 and not info["children"]):
        yield indent + line
    for child in info["children"]:
        below = f"{path}/{child['name']}"
        yield f"{indent}Child node '{below}':"
        yield from _graph(child["info"], below, depth + 1)


def _node(info: dict[str, Any], *, protocol: bool) -> Iterator[str]:
    yield from _head(info, protocol=protocol)
    if info.get("dirty-flag"):
        yield "cleanly shut down: no"
    if "backing-filename" in info:
        yield from _backing(info)
    if "limits" in info:
        yield "Block limits:"
        yield from tree_lines(info["limits"], 1)
    if info.get("snapshots"):
        yield "Snapshot list:"
        yield from snapshot_table(info["snapshots"])
    data = info.get("format-specific", {}).get("data")
    if data:
        yield "Format specific information:"
        yield from tree_lines(data, 1)


def _head(info: dict[str, Any], *, protocol: bool) -> Iterator[str]:
    length = size_and_bytes(info["virtual-size"])
    names = ("filename", "protocol type", "file length")
    if not protocol:
        names = ("image", "file format", "virtual size")
    yield f"{names[0]}: {info['filename']}"
    yield f"{names[1]}: {info['format']}"
    yield f"{names[2]}: {length}"
    actual = info.get("actual-size")
    yield f"disk size: {'unavailable' if actual is None else human_size(actual)}"
    if info.get("encrypted"):
        yield "encrypted: yes"
    if "cluster-size" in info:
        yield f"cluster_size: {info['cluster-size']}"


def _backing(info: dict[str, Any]) -> Iterator[str]:
    recorded = info["backing-filename"]
    full = info.get("full-backing-filename")
    note = ""
    if full is None:
        note = " (cannot determine actual path)"
    elif full != recorded:
        note = f" (actual path: {full})"
    yield f"backing file: {recorded}{note}"
    if "backing-filename-format" in info:
        yield f"backing file format: {info['backing-filename-format']}"


def snapshot_table(snapshots: list[dict[str, Any]]) -> Iterator[str]:
    """QAPI SnapshotInfo, a line each below a line of headings."""
    yield f"{'ID':<7} {'TAG':<16} {'VM_SIZE':>8} {'DATE':>19} {'VM_CLOCK':>15} {'ICOUNT':>10}"
    for each in snapshots:
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each["date-sec"]))
        seconds, milliseconds = each["vm-clock-sec"], each["vm-clock-nsec"] // 10**6
        minutes, second = divmod(seconds, 60)
        hours, minute = divmod(minutes, 60)
        clock = f"{hours:04}:{minute:02}:{second:02}.{milliseconds:03}"
        icount = each.get("icount", "--")
        size = human_size(each["vm-state-size"])
        yield (f"{each['id']:<7} {each['name']:<16} {size:>8} {date:>19} {clock:>15} {icount:>10}")
