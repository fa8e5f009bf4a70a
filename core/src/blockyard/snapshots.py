# SPDX-License-Identifier: Apache-2.0
"""Internal snapshots: which node of a tree keeps them, and what is done to them.

A driver without snapshots of its own passes the matter to the child that holds all
of its image (raw on qcow2).  Everything that changes an image runs in a drained
section of the node.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blockyard.errors import BlockyardError, Busy, ImageIOError, Unsupported, from_errno
from blockyard.imagework import ImageWork
from blockyard.permission import Role
from blockyard.schema.blockinfo import SnapshotInfo

if TYPE_CHECKING:
    from blockyard.graph import Graph
    from blockyard.node import Node

__all__ = [
    "apply_snapshot",
    "create_snapshot",
    "delete_snapshot",
    "find_snapshot",
    "keep_snapshot",
    "keeper_of",
    "snapshots_of",
]

_STORAGE = Role.DATA | Role.METADATA | Role.FILTERED
_NANOSECONDS = 10**9
_NAME_LIMIT = 255


def keeper_of(node: Node) -> Node | None:
    """The node whose driver keeps the snapshots of ``node``; None where there is none."""
    while type(node.driver).snapshots is ImageWork.snapshots:
        storage = [c for c in node.children.values() if c.role & _STORAGE]
        if len(storage) != 1 or not storage[0].role & Role.PRIMARY:
            return None
        node = storage[0].node
    return node


async def snapshots_of(node: Node) -> list[SnapshotInfo]:
    """The snapshots of the image.

    :raises ImageIOError: ENOTSUP if it cannot have any.
    """
    keeper = keeper_of(node)
    if keeper is None:
        raise from_errno(95)
    return await keeper.driver.snapshots()


async def find_snapshot(
    node: Node, snapshot_id: str | None, name: str | None
) -> SnapshotInfo | None:
    """The first snapshot that has this id, this name, or both; at least one is given.

    :raises ImageIOError: if the image cannot have snapshots.
    """
    try:
        listed = await snapshots_of(node)
    except ImageIOError as error:
        raise from_errno(error.errno or 5, "Failed to get a snapshot list") from error
    for each in listed:
        if snapshot_id in (None, each.id) and name in (None, each.name):
            return each
    return None


async def create_snapshot(graph: Graph, node: Node, name: str, device: str) -> SnapshotInfo:
    """Keep the present content of ``node`` under ``name``; ``device`` names it in errors.

    :raises BlockyardError: with QEMU's text; nothing has changed then.
    """
    async with graph.writer, graph.drained([node]):
        keeper = await _creatable(node, name, device)
        info = _taken_now(name)
        try:
            return await keeper.driver.snapshot_create(info.name, info)
        except ImageIOError as error:
            text = f"Failed to create snapshot '{name}' on device '{device}'"
            raise from_errno(error.errno or 5, text) from error


async def keep_snapshot(graph: Graph, node: Node, name: str) -> SnapshotInfo:
    """Keep the present content of ``node`` under ``name``, which others may have as well.

    For programs that no machine belongs to: its clock is at nothing.

    :raises ImageIOError: ENOTSUP if the image cannot have snapshots, or if it fails.
    """
    async with graph.writer, graph.drained([node]):
        keeper = keeper_of(node)
        if keeper is None:
            raise from_errno(95)
        info = _taken_now(name)
        info.vm_clock_sec = info.vm_clock_nsec = info.icount = 0
        return await keeper.driver.snapshot_create(info.name, info)


async def _creatable(node: Node, name: str, device: str) -> Node:
    if node.read_only:
        raise BlockyardError(f"Device '{device}' is read only")
    keeper = keeper_of(node)
    if keeper is None or keeper.read_only:
        raise Unsupported(
            f"Block format '{node.type.name}' used by device '{device}' "
            "does not support internal snapshots"
        )
    if not name:
        raise BlockyardError("Name is empty")
    if await find_snapshot(node, None, name) is not None:
        raise BlockyardError(f"Snapshot with name '{name}' already exists on device '{device}'")
    return keeper


def _taken_now(name: str) -> SnapshotInfo:
    # There is no machine, so its clock is the world's.
    seconds, microseconds = divmod(time.time_ns() // 1000, 10**6)
    return SnapshotInfo(
        id="",
        name=name.encode()[:_NAME_LIMIT].decode(errors="ignore"),
        vm_state_size=0,
        date_sec=seconds,
        date_nsec=microseconds * 1000,
        vm_clock_sec=seconds,
        vm_clock_nsec=microseconds * 1000,
    )


async def delete_snapshot(
    graph: Graph, node: Node, snapshot_id: str | None, name: str | None
) -> SnapshotInfo:
    """Delete the snapshot that has this id, this name, or both; answers what it was.

    :raises BlockyardError: with QEMU's text; the snapshot is still there then.
    """
    async with graph.writer, graph.drained([node]):
        keeper = keeper_of(node)
        if keeper is None:
            raise Unsupported(
                f"Block format '{node.type.name}' used by device '' "
                "does not support internal snapshot deletion"
            )
        return await keeper.driver.snapshot_delete(snapshot_id, name)


async def apply_snapshot(graph: Graph, node: Node, id_or_name: str) -> None:
    """Make the content of ``node`` what it was in a snapshot; its length follows.

    :raises BlockyardError: with QEMU's text.
    """
    if node.bitmaps:
        raise Busy("Device has active dirty bitmaps")
    async with graph.writer:
        async with graph.drained([node]):
            keeper = keeper_of(node)
            if keeper is None:
                raise Unsupported("Block driver does not support snapshots")
            try:
                await keeper.driver.snapshot_apply(id_or_name)
            except ImageIOError as error:
                raise from_errno(error.errno or 5, "Failed to load snapshot") from error
        graph.length_changed(keeper)
