# SPDX-License-Identifier: Apache-2.0
"""The block-dirty-bitmap commands, and the same as actions of a transaction.

Each is one function of the graph, the arguments and a transaction that undoes it; the
command alone is a transaction of one action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from blockyard import bitmaps
from blockyard.bitmaps import Check
from blockyard.changes.transaction import Transaction
from blockyard.errors import InvalidOption, NotFound
from blockyard.qmp.command import command
from blockyard.schema.bitmap import (
    BlockDirtyBitmapAdd,
    BlockDirtyBitmapMerge,
    BlockDirtyBitmapSha256,
)
from blockyard.schema.export import BlockDirtyBitmap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blockyard.bitmaps import DirtyBitmap
    from blockyard.graph import Graph
    from blockyard.yard import Yard

__all__ = [
    "add",
    "block_dirty_bitmap_add",
    "block_dirty_bitmap_clear",
    "block_dirty_bitmap_disable",
    "block_dirty_bitmap_enable",
    "block_dirty_bitmap_merge",
    "block_dirty_bitmap_remove",
    "clear",
    "disable",
    "enable",
    "merge",
    "remove",
    "x_debug_block_dirty_bitmap_sha256",
]


# -- actions


async def add(graph: Graph, args: BlockDirtyBitmapAdd, tran: Transaction) -> None:
    """A new bitmap of a node."""
    if not args.name:
        raise InvalidOption("Bitmap name cannot be empty")
    node = graph.lookup_child(args.node)
    bitmap = bitmaps.create(
        node,
        args.name,
        args.granularity,
        recording=not args.disabled,
        persistent=bool(args.persistent),
    )
    tran.add(abort=lambda: bitmaps.release(bitmap))


async def remove(graph: Graph, args: BlockDirtyBitmap, tran: Transaction) -> None:
    """End a bitmap; until the transaction ends it is there, but busy.

    What the image stores of it is dropped at once.  A transaction that fails keeps the
    bitmap, which is stored again when the image is closed.
    """
    bitmap = bitmaps.lookup(graph, args.node, args.name)
    bitmap.check(Check.BUSY | Check.READ_ONLY)
    if bitmap.stored:
        await bitmap.node.driver.remove_persistent_bitmap(bitmap.name)
    bitmap.skip_store = bitmap.busy = True
    tran.add(commit=lambda: bitmaps.release(bitmap), abort=lambda: _keep(bitmap))


def _keep(bitmap: DirtyBitmap) -> None:
    bitmap.skip_store = bitmap.busy = False


async def clear(graph: Graph, args: BlockDirtyBitmap, tran: Transaction) -> None:
    """Forget what a bitmap has recorded."""
    bitmap = bitmaps.lookup(graph, args.node, args.name)
    bitmap.check(Check.ALL)
    held = bitmap.take()
    tran.add(abort=lambda: bitmap.give_back(held))


async def enable(graph: Graph, args: BlockDirtyBitmap, tran: Transaction) -> None:
    """Let a bitmap record changes."""
    _record(graph, args, True, tran)


async def disable(graph: Graph, args: BlockDirtyBitmap, tran: Transaction) -> None:
    """Let a bitmap record no more changes."""
    _record(graph, args, False, tran)


def _record(graph: Graph, args: BlockDirtyBitmap, recording: bool, tran: Transaction) -> None:
    bitmap = bitmaps.lookup(graph, args.node, args.name)
    bitmap.check(Check.USE)
    before = bitmap.recording
    bitmap.recording = recording
    tran.add(abort=lambda: setattr(bitmap, "recording", before))


async def merge(graph: Graph, args: BlockDirtyBitmapMerge, tran: Transaction) -> None:
    """Mark in one bitmap what is dirty in others."""
    target = bitmaps.lookup(graph, args.node, args.target)
    sources = []
    for named in args.bitmaps:
        source = _source(graph, target, named)
        target.check(Check.ALL)
        source.check(Check.USE)
        if source.length != target.length:
            raise InvalidOption(
                f"Bitmaps are of different sizes (destination size is {target.length}, "
                f"source size is {source.length}) and can't be merged"
            )
        sources.append(source)
    before = target.copy()
    tran.add(abort=lambda: target.restore(before))
    for source in sources:
        target.merge(source)


def _source(graph: Graph, target: DirtyBitmap, named: Any) -> DirtyBitmap:
    if not isinstance(named, str):
        return bitmaps.lookup(graph, named.node, named.name)
    found = bitmaps.find(target.node, named)
    if found is None:
        raise NotFound(f"Dirty bitmap '{named}' not found")
    return found


# -- commands


async def _alone(
    yard: Yard, action: Callable[[Graph, Any, Transaction], Awaitable[None]], args: Any
) -> None:
    async with yard.graph.writer, Transaction() as tran:
        await action(yard.graph, args, tran)


@command("block-dirty-bitmap-add", args=BlockDirtyBitmapAdd)
async def block_dirty_bitmap_add(yard: Yard, args: BlockDirtyBitmapAdd) -> None:
    """Begin to record what changes in a node."""
    await _alone(yard, add, args)


@command("block-dirty-bitmap-remove", args=BlockDirtyBitmap)
async def block_dirty_bitmap_remove(yard: Yard, args: BlockDirtyBitmap) -> None:
    """End a bitmap, in the image too."""
    await _alone(yard, remove, args)


@command("block-dirty-bitmap-clear", args=BlockDirtyBitmap)
async def block_dirty_bitmap_clear(yard: Yard, args: BlockDirtyBitmap) -> None:
    """Forget what a bitmap has recorded."""
    await _alone(yard, clear, args)


@command("block-dirty-bitmap-enable", args=BlockDirtyBitmap)
async def block_dirty_bitmap_enable(yard: Yard, args: BlockDirtyBitmap) -> None:
    """Let a bitmap record changes."""
    await _alone(yard, enable, args)


@command("block-dirty-bitmap-disable", args=BlockDirtyBitmap)
async def block_dirty_bitmap_disable(yard: Yard, args: BlockDirtyBitmap) -> None:
    """Let a bitmap record no more changes."""
    await _alone(yard, disable, args)


@command("block-dirty-bitmap-merge", args=BlockDirtyBitmapMerge)
async def block_dirty_bitmap_merge(yard: Yard, args: BlockDirtyBitmapMerge) -> None:
    """Mark in one bitmap what is dirty in others."""
    await _alone(yard, merge, args)


@command(
    "x-debug-block-dirty-bitmap-sha256",
    args=BlockDirtyBitmap,
    returns=BlockDirtyBitmapSha256,
    features=("unstable",),
)
async def x_debug_block_dirty_bitmap_sha256(
    yard: Yard, args: BlockDirtyBitmap
) -> BlockDirtyBitmapSha256:
    """A bitmap's content as a digest."""
    bitmap = bitmaps.lookup(yard.graph, args.node, args.name)
    return BlockDirtyBitmapSha256(sha256=await anyio.to_thread.run_sync(bitmap.sha256))
