# SPDX-License-Identifier: Apache-2.0
"""Transactions: several commands that take effect together or not at all."""

from __future__ import annotations

from typing import Any

from blockyard.schema.bitmap import BlockDirtyBitmapAdd, BlockDirtyBitmapMerge
from blockyard.schema.declare import QEnum, branches, enum, struct, union, wrapper
from blockyard.schema.export import BlockDirtyBitmap

__all__ = [
    "Abort",
    "ActionCompletionMode",
    "TransactionAction",
    "TransactionActionKind",
    "TransactionProperties",
]


@enum
class ActionCompletionMode(QEnum):
    """What becomes of a transaction's jobs when one of them fails.

    The others go on (``individual``), or are cancelled (``grouped``).
    """

    INDIVIDUAL = "individual"
    GROUPED = "grouped"


@enum
class TransactionActionKind(QEnum):
    """What an action of a transaction does; the command of that name says it."""

    ABORT = "abort"
    BLOCK_DIRTY_BITMAP_ADD = "block-dirty-bitmap-add"
    BLOCK_DIRTY_BITMAP_REMOVE = "block-dirty-bitmap-remove"
    BLOCK_DIRTY_BITMAP_CLEAR = "block-dirty-bitmap-clear"
    BLOCK_DIRTY_BITMAP_ENABLE = "block-dirty-bitmap-enable"
    BLOCK_DIRTY_BITMAP_DISABLE = "block-dirty-bitmap-disable"
    BLOCK_DIRTY_BITMAP_MERGE = "block-dirty-bitmap-merge"


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
        }
    )


@struct
class TransactionProperties:
    """How a transaction as a whole behaves.

    completion-mode: what becomes of its jobs when one of them fails (individual).
    """

    completion_mode: ActionCompletionMode | None = None
