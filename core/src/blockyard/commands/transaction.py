# SPDX-License-Identifier: Apache-2.0
"""transaction: several actions that take effect together or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.changes.transaction import Transaction
from blockyard.commands import bitmap, snapshot
from blockyard.commands.snapshot import BlockdevSnapshotInternal
from blockyard.errors import BlockyardError, Unsupported
from blockyard.qmp.command import command
from blockyard.schema.bitmap import BlockDirtyBitmapAdd, BlockDirtyBitmapMerge
from blockyard.schema.declare import QEnum, branches, enum, struct, union, wrapper
from blockyard.schema.export import BlockDirtyBitmap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blockyard.graph import Graph
    from blockyard.yard import Yard

__all__ = ["transaction"]


@enum
class ActionCompletionMode(QEnum):
    """What becomes of a transaction's jobs when one of them fails.

    The others go on (``individual``), or are cancelled (``grouped``).
    """

    INDIVIDUAL = "individual"
    GROUPED = "grouped"


@enum
class TransactionActionKind(QEnum):
    """What an action does; the command of that name says it."""

    ABORT = "abort"
    BLOCK_DIRTY_BITMAP_ADD = "block-dirty-bitmap-add"
    BLOCK_DIRTY_BITMAP_REMOVE = "block-dirty-bitmap-remove"
    BLOCK_DIRTY_BITMAP_CLEAR = "block-dirty-bitmap-clear"
    BLOCK_DIRTY_BITMAP_ENABLE = "block-dirty-bitmap-enable"
    BLOCK_DIRTY_BITMAP_DISABLE = "block-dirty-bitmap-disable"
    BLOCK_DIRTY_BITMAP_MERGE = "block-dirty-bitmap-merge"
    BLOCKDEV_SNAPSHOT_INTERNAL_SYNC = "blockdev-snapshot-internal-sync"


@struct
class Abort:
    """The action that makes a transaction fail, for tests; it takes nothing."""


@union("type")
class TransactionAction:
    """One action of a transaction.

    type: what it does.
    """

    type: TransactionActionKind
    u: Any = branches(
        fixed={
            "abort": wrapper(Abort),
            "block-dirty-bitmap-add": wrapper(BlockDirtyBitmapAdd),
            "block-dirty-bitmap-remove": wrapper(BlockDirtyBitmap),
            "block-dirty-bitmap-clear": wrapper(BlockDirtyBitmap),
            "block-dirty-bitmap-enable": wrapper(BlockDirtyBitmap),
            "block-dirty-bitmap-disable": wrapper(BlockDirtyBitmap),
            "block-dirty-bitmap-merge": wrapper(BlockDirtyBitmapMerge),
            "blockdev-snapshot-internal-sync": wrapper(BlockdevSnapshotInternal),
        }
    )


@struct
class TransactionProperties:
    """How a transaction as a whole behaves.

    completion-mode: what becomes of its jobs when one of them fails (individual).
    """

    completion_mode: ActionCompletionMode | None = None


@struct
class TransactionArguments:
    """What transaction takes.

    actions: what is to be done, in this order.
    properties: how the transaction as a whole behaves.
    """

    actions: list[TransactionAction]
    properties: TransactionProperties | None = None


async def _abort(graph: Graph, args: Any, tran: Transaction) -> None:
    raise BlockyardError("Transaction aborted using Abort action")


#: What each kind of action does; it leaves with the transaction how to undo it.
_ACTIONS: dict[str, Callable[[Graph, Any, Transaction], Awaitable[None]]] = {
    "abort": _abort,
    "block-dirty-bitmap-add": bitmap.add,
    "block-dirty-bitmap-remove": bitmap.remove,
    "block-dirty-bitmap-clear": bitmap.clear,
    "block-dirty-bitmap-enable": bitmap.enable,
    "block-dirty-bitmap-disable": bitmap.disable,
    "block-dirty-bitmap-merge": bitmap.merge,
    "blockdev-snapshot-internal-sync": snapshot.take,
}


@command("transaction", args=TransactionArguments)
async def transaction(yard: Yard, args: TransactionArguments) -> None:
    """Do all the actions at one point in time, or, when one fails, none.

    No request is under way in any node meanwhile.
    """
    mode = args.properties.completion_mode if args.properties else None
    if mode == ActionCompletionMode.GROUPED:
        for action in args.actions:
            # Only jobs complete later than their action.
            raise Unsupported(
                f"Action '{action.type}' does not support transaction property "
                "completion-mode = grouped"
            )
    graph = yard.graph
    async with graph.writer, graph.drained(graph.nodes.values()), Transaction() as tran:
        for action in args.actions:
            await _ACTIONS[action.type](graph, action.u.data, tran)
