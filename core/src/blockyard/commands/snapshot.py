# SPDX-License-Identifier: Apache-2.0
"""blockdev-snapshot-internal-sync and blockdev-snapshot-delete-internal-sync."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from blockyard.changes.topology import parent_nodes
from blockyard.errors import BlockyardError, InvalidOption, NotFound
from blockyard.qmp.command import command
from blockyard.schema.blockinfo import SnapshotInfo
from blockyard.schema.declare import struct
from blockyard.snapshots import create_snapshot, delete_snapshot, find_snapshot

if TYPE_CHECKING:
    from blockyard.changes.transaction import Transaction
    from blockyard.graph import Graph
    from blockyard.node import Node
    from blockyard.yard import Yard

__all__ = [
    "BlockdevSnapshotInternal",
    "blockdev_snapshot_delete_internal_sync",
    "blockdev_snapshot_internal_sync",
    "root_node",
    "take",
]

_log = logging.getLogger(__name__)


@struct
class BlockdevSnapshotInternal:
    """What blockdev-snapshot-internal-sync takes.

    device: the node whose content is kept, in its own image; no other node uses it.
    name: the snapshot's name.
    """

    device: str
    name: str


@struct
class BlockdevSnapshotDeleteInternalSyncArguments:
    """What blockdev-snapshot-delete-internal-sync takes; one of id and name, or both.

    device: the node.
    id: the snapshot's number.
    name: its name.
    """

    device: str
    id: str | None = None
    name: str | None = None


def root_node(graph: Graph, device: str) -> Node:
    """The node of that name, if no other node uses it.

    :raises NotFound: if there is none.
    :raises InvalidOption: if another node uses it.
    """
    node = graph.lookup(device, device)
    if parent_nodes(node):
        raise InvalidOption("Need a root block node")
    return node


async def take(graph: Graph, args: BlockdevSnapshotInternal, tran: Transaction) -> None:
    """The transaction's action: ``tran`` deletes the snapshot when it is aborted."""
    node = root_node(graph, args.device)
    made = await create_snapshot(graph, node, args.name, args.device)

    async def undo() -> None:
        try:
            await delete_snapshot(graph, node, made.id, made.name)
        except BlockyardError as error:
            _log.error(
                "Failed to delete snapshot with id '%s' and name '%s' on device '%s' in abort: %s",
                *(made.id, made.name, args.device, error),
            )

    tran.add(abort=undo)


@command("blockdev-snapshot-internal-sync", args=BlockdevSnapshotInternal)
async def blockdev_snapshot_internal_sync(yard: Yard, args: BlockdevSnapshotInternal) -> None:
    """Keep a node's present content as a snapshot inside its image."""
    node = root_node(yard.graph, args.device)
    await create_snapshot(yard.graph, node, args.name, args.device)


@command(
    "blockdev-snapshot-delete-internal-sync",
    args=BlockdevSnapshotDeleteInternalSyncArguments,
    returns=SnapshotInfo,
)
async def blockdev_snapshot_delete_internal_sync(
    yard: Yard, args: BlockdevSnapshotDeleteInternalSyncArguments
) -> SnapshotInfo:
    """Delete a snapshot inside an image, and tell what it was."""
    async with yard.graph.writer:
        node = root_node(yard.graph, args.device)
        if args.id is None and args.name is None:
            raise InvalidOption("Name or id must be provided")
        found = await find_snapshot(node, args.id, args.name)
        if found is None:
            raise NotFound(
                f"Snapshot with id '{_text(args.id)}' and name '{_text(args.name)}' "
                f"does not exist on device '{args.device}'"
            )
        await delete_snapshot(yard.graph, node, args.id, args.name)
        return found


def _text(value: str | None) -> str:
    return "null" if value is None else value
