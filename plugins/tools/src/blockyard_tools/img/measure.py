# SPDX-License-Identifier: Apache-2.0
"""``blockyard img measure``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from blockyard.errors import BlockyardError
from blockyard_tools.img.command import Command, Opt, common, failed
from blockyard_tools.img.formatoptions import joined, print_help
from blockyard_tools.img.session import how_of, opened, output_of, print_json, size_of, work

if TYPE_CHECKING:
    from blockyard.image import Image
    from blockyard.imagework import Measure
    from blockyard.yard import Yard
    from blockyard_tools.opening import How
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="measure",
    summary="Calculate the file size required for a new image",
    usage="[-f FMT | --image-opts] [-l SNAPSHOT]\n"
    "[-O TARGET_FMT] [-o TARGET_FMT_OPTS] [--output human|json] [-U]\n"
    "[--object OBJDEF] (--size SIZE | FILE)",
    options=(
        *common("format", "image-opts"),
        Opt("snapshot|l=", "the content is that of a snapshot of FILE", "SNAPSHOT"),
        Opt("target-format|O=", "the new image's format (default: raw)", "TARGET_FMT"),
        Opt("options|o=", "options of the new image's format", "TARGET_FMT_OPTS"),
        *common("output", "force-share", "object"),
        Opt("size|s=", "the new image's disk is empty, and so large", "SIZE"),
    ),
    words=(("FILE", "what would be copied into the new image"),),
)


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    target = line.last("target-format") or "raw"
    options, asked = joined(line.all("options"))
    as_json = output_of(COMMAND, line)
    size = line.last("size")
    wanted = None if size is None else size_of("image size", size)
    how = _checked(line, wanted)
    if asked:
        return print_help(None, target)

    async def body(yard: Yard) -> int:
        async with AsyncExitStack() as stack:
            source = None
            if line.words:
                source = await stack.enter_async_context(opened(yard, line.words[0], how))
                await _choose(source, line.last("snapshot"))
            found = await _measure(yard, target, options, wanted, source)
        _report(found, as_json=as_json)
        return 0

    return work(line, body)


def _checked(line: Line, size: int | None) -> How:
    """How FILE is opened, if there is one.

    :raises ProgramError: if the words contradict each other.
    """
    if len(line.words) > 1:
        raise failed("At most one filename argument is allowed.")
    if not line.words and any(line.has(name) for name in ("image-opts", "format", "snapshot")):
        raise failed("--image-opts, -f, and -l require a filename argument.")
    if not line.words and size is None:
        raise failed("Either --size N or one filename must be specified.")
    if line.words and size is not None:
        raise failed("--size N cannot be used together with a filename.")
    return how_of(COMMAND, line)


async def _choose(source: Image, snapshot: str | None) -> None:
    if snapshot is None:
        return
    from blockyard_tools.img.snapshotchoice import choose

    try:
        await choose(source, snapshot)
    except BlockyardError as error:
        raise failed(f"Failed to load snapshot: {error}") from error


async def _measure(
    yard: Yard, target: str, options: str, size: int | None, source: Image | None
) -> Measure:
    from blockyard.errors import InvalidOption
    from blockyard.newimage import NewImage, measure_image
    from blockyard_tools.img.session import announce

    new = NewImage.of_format(yard.registry, target)
    try:
        new.take(options)
    except InvalidOption as error:
        announce(str(error))
        raise failed(f"Invalid options for file format '{target}'") from error
    if size is not None:
        new.set("size", str(size))
    return await measure_image(yard, new, source.node if source is not None else None)


def _report(found: Measure, *, as_json: bool) -> None:
    told = {"required": found.required, "fully-allocated": found.fully_allocated}
    if found.bitmaps is not None:
        told["bitmaps"] = found.bitmaps
    if as_json:
        print_json(told)
        return
    print(f"required size: {found.required}\nfully allocated size: {found.fully_allocated}")
    if found.bitmaps is not None:
        print(f"bitmaps size: {found.bitmaps}")
