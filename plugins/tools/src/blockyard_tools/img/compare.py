# SPDX-License-Identifier: Apache-2.0
"""``blockyard img compare``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from blockyard.errors import BlockyardError
from blockyard_tools.img.command import Command, Opt, common, failed
from blockyard_tools.img.session import work
from blockyard_tools.opening import CACHE_MODES, How, open_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blockyard.copying import CopyFailed, Difference
    from blockyard.image import Image
    from blockyard.yard import Yard
    from blockyard_tools.error import ProgramError
    from blockyard_tools.options import Line
    from blockyard_tools.progress import Meter

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="compare",
    summary="Check if two images have the same contents",
    usage="[[-f FMT] [-F FMT] | --image-opts] [-s] [-T CACHE]\n"
    "[-U] [-p] [-q] [--object OBJDEF] FILE1 FILE2",
    options=(
        Opt("a-format|f=", "FILE1's format (default: found out by its content)", "FMT"),
        Opt("b-format|F=", "FILE2's format (default: found out by its content)", "FMT"),
        Opt("image-opts", "FILE1 and FILE2 are options, key=value,..., and not names"),
        Opt("strict|s", "they differ also where only one is allocated, or is longer"),
        Opt("cache|T=", "how the host's cache is used (default: writeback)", "CACHE"),
        *common("force-share", "progress", "quiet", "object"),
    ),
    words=(("FILE1, FILE2", "the images"),),
    more="""\
The status is 0 if they are the same, 1 if they differ, more if that is not known.

Example:
  qemu-img compare disk.raw disk.qcow2""",
)

_SIZES_DIFFER = "Warning: Image size mismatch!"
_EQUAL, _DIFFERENT, _NOT_OPEN, _NO_STATUS, _NO_DATA = range(5)


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    if line.has("image-opts") and (line.has("a-format") or line.has("b-format")):
        raise failed("--image-opts and --format are mutually exclusive", _NOT_OPEN)
    if len(line.words) != 2:
        raise COMMAND.wrong("Expecting two image file names")
    cache = line.last("cache") or "writeback"
    if cache not in CACHE_MODES:
        raise failed(f"Invalid source cache option: {cache}", _NOT_OPEN)
    hows = [
        How(
            format=line.last(option),
            image_opts=line.has("image-opts"),
            cache=cache,
            force_share=line.has("force-share"),
        )
        for option in ("a-format", "b-format")
    ]

    async def body(yard: Yard) -> int:
        async with AsyncExitStack() as stack:
            images = [
                await stack.enter_async_context(await _opened(yard, name, how))
                for name, how in zip(line.words, hows, strict=True)
            ]
            return await _compare(yard, line, images[0], images[1])

    return work(line, body)


async def _opened(yard: Yard, name: str, how: How) -> Image:
    try:
        return await open_image(yard, name, how)
    except BlockyardError as error:
        raise failed(f"Could not open '{name}': {error}", _NOT_OPEN) from error


async def _compare(yard: Yard, line: Line, first: Image, second: Image) -> int:
    from blockyard.copying import Comparer, CopyFailed
    from blockyard.loop import LoopParams
    from blockyard_tools.progress import Meter, shown

    def tell(text: str) -> None:
        if not line.has("quiet"):
            print(text)

    meter = Meter(on=line.has("progress") and not line.has("quiet"))
    try:
        if line.has("strict") and first.length != second.length:
            tell("Strict mode: Image size mismatch!")
            return _DIFFERENT
        comparer = Comparer(
            yard.control,
            (first.root, second.root),
            # A name that no --object can have.
            helper=yard.loops.add("#compare", LoopParams(poll_max_ns=0)),
            strict=line.has("strict"),
        )
        async with shown(meter, comparer):
            found = await comparer.run()
        return _told(found, meter, first.length, second.length, tell)
    except CopyFailed as error:
        if first.length != second.length and error.offset >= min(first.length, second.length):
            tell(_SIZES_DIFFER)
        told = _unknown(error, line.words)
        told.flushes = False  # as qemu-img: a pipe gets the error before the warning
        raise told from error
    finally:
        meter.end()


def _told(
    found: Difference, meter: Meter, first: int, second: int, tell: Callable[[str], None]
) -> int:
    from blockyard.copying import Comparison

    if found.kind is Comparison.STATUS:
        tell(f"Strict mode: Offset {found.offset} block status mismatch!")
        return _DIFFERENT
    equal = found.kind is Comparison.EQUAL
    if first != second and (equal or found.offset >= min(first, second)):
        tell(_SIZES_DIFFER)
    if not equal:
        tell(f"Content mismatch at offset {found.offset}!")
        return _DIFFERENT
    meter.finish()
    tell("Images are identical.")
    return _EQUAL


def _unknown(error: CopyFailed, names: Sequence[str]) -> ProgramError:
    from blockyard.copying import Side

    name = names[error.index or 0]
    if error.side is Side.STATUS:
        return failed(f"Sector allocation test failed for {name}", _NO_STATUS)
    return failed(f"Error while reading offset {error.offset} of {name}: {error}", _NO_DATA)
