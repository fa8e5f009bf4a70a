# SPDX-License-Identifier: Apache-2.0
"""``blockyard img dd``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import attrs

from blockyard.errors import BlockyardError
from blockyard_tools.img.command import Command, Opt, common, failed
from blockyard_tools.img.copying import copied, whole_sectors
from blockyard_tools.img.numbers import INT_MAX, bounded
from blockyard_tools.img.session import announce, how_of, opened, work
from blockyard_tools.opening import How
from blockyard_tools.progress import Meter

if TYPE_CHECKING:
    from blockyard.image import Image
    from blockyard.yard import Yard
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="dd",
    summary="Copy blocks of an image to a new one",
    usage="[-f FMT | --image-opts] [-O OUTPUT_FMT] [-U]\n"
    "[--object OBJDEF] [bs=BLOCK_SIZE] [count=BLOCKS] [skip=BLOCKS] if=INPUT of=OUTPUT",
    options=(
        *common("format", "image-opts"),
        Opt("output-format|O=", "the new image's format (default: raw)", "OUTPUT_FMT"),
        *common("force-share", "object"),
    ),
    words=(
        ("if=INPUT", "the image that is read, or with --image-opts its options"),
        ("of=OUTPUT", "the new image"),
        ("bs=BLOCK_SIZE", "bytes of a block (default: 512)"),
        ("count=BLOCKS", "how many blocks are copied (default: all)"),
        ("skip=BLOCKS", "how many blocks of the input are left out before (default: 0)"),
    ),
    more="""\
Example:
  qemu-img dd -O qcow2 bs=1M count=100 if=disk.raw of=begin.qcow2""",
)

_OPERANDS = ("bs", "count", "if", "of", "skip")


@attrs.frozen(kw_only=True)
class _Blocks:
    """What is copied."""

    bs: int
    count: int | None
    skip: int

    def part_of(self, size: int) -> tuple[int, int]:
        """Where it begins and ends in an image of this size; what is skipped counts."""
        end = size if self.count is None else min(size, self.count * self.bs)
        return self.skip * self.bs, end


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    given: dict[str, str] = {}
    for word in line.words:
        name, equals, value = word.partition("=")
        if not equals or name not in _OPERANDS:
            raise failed(f"unrecognized operand {name}")
        if name not in ("if", "of"):
            _number(name, value)
        given[name] = value
    if "if" not in given or "of" not in given:
        raise failed("Must specify both input and output files")
    blocks = _Blocks(
        bs=_number("bs", given.get("bs", "512")),
        count=_number("count", given["count"]) if "count" in given else None,
        skip=_number("skip", given.get("skip", "0")),
    )
    how = how_of(COMMAND, line)
    fmt = line.last("output-format") or "raw"

    async def body(yard: Yard) -> int:
        async with opened(yard, given["if"], how) as image:
            begin, end = blocks.part_of(whole_sectors(image.length))
            count = max(0, end - begin)
            await _create(yard, given["of"], fmt, count)
            if begin > end:
                announce(f"{given['if']}: cannot skip to specified offset")
            await _copy(yard, image, given["of"], fmt, begin, count)
        return 0

    return work(line, body)


def _number(name: str, text: str) -> int:
    if name == "bs":
        return bounded(text, name, 1, INT_MAX)
    return bounded(text, name)


async def _create(yard: Yard, name: str, fmt: str, size: int) -> None:
    from blockyard.errors import UnknownPlugin
    from blockyard.newimage import NewImage, make_image

    try:
        new = await NewImage.find(yard.registry, name, fmt)
    except UnknownPlugin as error:
        raise failed("Unknown file format") from error
    new.set("size", str(size))
    try:
        await make_image(yard, new)
    except BlockyardError as error:
        raise failed(f"{name}: error while creating output image: {error}") from error


async def _copy(yard: Yard, image: Image, name: str, fmt: str, begin: int, count: int) -> None:
    from blockyard.copying import Copier, CopyFailed, Range, Side

    async with AsyncExitStack() as stack:
        how = How(format=fmt, writable=True)
        target = await stack.enter_async_context(opened(yard, name, how))
        copier = Copier(
            yard.control,
            target.root,
            [Range(source=image.root, offset=begin, bytes=count)] if count else [],
            sparse=0,
        )
        try:
            await copied(copier, Meter(on=False))
        except CopyFailed as error:
            doing = "writing to output" if error.side is Side.WRITE else "reading from input"
            raise failed(f"error while {doing} image file: {error}") from error
