# SPDX-License-Identifier: Apache-2.0
"""transaction: several actions that take effect together or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.changes.transaction import Transaction
from blockyard.commands import bitmap
from blockyard.errors import BlockyardError, Unsupported
from blockyard.qmp.command import command
from blockyard.schema.declare import struct
from blockyard.schema.transaction import (
    ActionCompletionMode,
    TransactionAction,
    TransactionProperties,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blockyard.graph import Graph
    from blockyard.yard import Yard

__all__ = ["transaction"]


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
