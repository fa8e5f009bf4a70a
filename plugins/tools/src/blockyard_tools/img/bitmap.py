# SPDX-License-Identifier: Apache-2.0
"""``blockyard img bitmap``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from blockyard.errors import BlockyardError
from blockyard_tools.img.command import Command, Opt, common, failed
from blockyard_tools.img.session import how_of, opened, size_of, work
from blockyard_tools.opening import How

if TYPE_CHECKING:
    from blockyard.node import Node
    from blockyard.yard import Yard
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="bitmap",
    summary="Perform modifications of the persistent bitmap in the image",
    usage="[-f FMT | --image-opts]\n"
    "( --add [-g SIZE] | --remove | --remove-all | --clear | --enable |\n"
    "  --disable | --merge SOURCE [-b SRC_FILE [-F SRC_FMT]] )..\n"
    "[--object OBJDEF] FILE [BITMAP]",
    options=(
        *common("format", "image-opts"),
        Opt("add", "make the bitmap, which records writes from then on"),
        Opt(
            "granularity|g=",
            "how many bytes a bit of the new bitmap stands for, a power of two",
            "SIZE",
        ),
        Opt("remove", "end the bitmap"),
        Opt("remove-all", "end all bitmaps that the image has; alone, it takes no BITMAP"),
        Opt("clear", "forget what the bitmap has recorded"),
        Opt("enable", "let the bitmap record writes"),
        Opt("disable", "let the bitmap record no more writes"),
        Opt("merge=", "add to the bitmap what this one has recorded", "SOURCE"),
        Opt("source-file|b=", "the image that has the bitmap SOURCE", "SRC_FILE"),
        Opt("source-format|F=", "the format of that image", "SRC_FMT"),
        *common("object"),
    ),
    words=(
        ("FILE", "the image's name, or with --image-opts its options"),
        ("BITMAP", "the bitmap's name; what is asked for is done to it in order"),
    ),
)
_ACTIONS = ("add", "remove", "clear", "enable", "disable", "merge")
_REMOVE_ALL = "remove-all"


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    granularity = line.last("granularity")
    size = None if granularity is None else size_of("granularity", granularity)
    _check(line)
    name, bitmap = (*line.words, "")[:2]
    how = how_of(COMMAND, line, writable=True)

    async def body(yard: Yard) -> int:
        async with AsyncExitStack() as stack:
            image = await stack.enter_async_context(opened(yard, name, how))
            source = image
            if (other := line.last("source-file")) is not None:
                fmt = line.last("source-format")
                source = await stack.enter_async_context(opened(yard, other, How(format=fmt)))
            for each in line:
                if each.name in _ACTIONS:
                    names = (bitmap, each.argument or "")
                    await _act(yard, each.name, image.node, names, source.node, size)
                elif each.name == _REMOVE_ALL:
                    for one in list(image.node.bitmaps):
                        await _act(yard, "remove", image.node, (one, ""), source.node, size)
        return 0

    return work(line, body)


def _check(line: Line) -> None:
    named = any(each.name in _ACTIONS for each in line)
    if not named and not line.has(_REMOVE_ALL):
        raise failed(
            "Need at least one of --add, --remove, --remove-all, --clear, --enable, --disable, "
            "or --merge"
        )
    if named and len(line.words) != 2:
        raise failed("Expecting filename and bitmap name")
    if not named and len(line.words) != 1:
        raise failed("Expecting filename")
    if line.has("granularity") and not line.has("add"):
        raise failed("granularity only supported with --add")
    if line.has("source-format") and not line.has("source-file"):
        raise failed("-F only supported with -b")
    if line.has("source-file") and not line.has("merge"):
        raise failed("Merge bitmap source file only supported with --merge")


async def _act(
    yard: Yard,
    action: str,
    node: Node,
    names: tuple[str, str],
    source: Node,
    granularity: int | None,
) -> None:
    from blockyard.changes.transaction import Transaction
    from blockyard.commands import bitmap as actions
    from blockyard.schema.bitmap import BlockDirtyBitmapAdd, BlockDirtyBitmapMerge
    from blockyard.schema.export import BlockDirtyBitmap

    bitmap, other = names
    args: Any
    if action == "add":
        args = BlockDirtyBitmapAdd(
            node=node.name, name=bitmap, granularity=granularity or None, persistent=True
        )
    elif action == "merge":
        named = BlockDirtyBitmap(node=source.name, name=other)
        args = BlockDirtyBitmapMerge(node=node.name, target=bitmap, bitmaps=[named])
    else:
        args = BlockDirtyBitmap(node=node.name, name=bitmap)
    try:
        async with yard.graph.writer, Transaction() as tran:
            await getattr(actions, action)(yard.graph, args, tran)
    except BlockyardError as error:
        text = f"Operation {action} on bitmap {bitmap} failed: {error}"
        raise failed(text) from error
