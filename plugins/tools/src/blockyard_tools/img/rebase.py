# SPDX-License-Identifier: Apache-2.0
"""``blockyard img rebase``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import attrs

from blockyard.errors import BlockyardError, ImageIOError
from blockyard_tools.img.command import PROGRAM, Command, Opt, common, failed
from blockyard_tools.img.copying import copied
from blockyard_tools.img.session import how_of, one_file, opened, work
from blockyard_tools.opening import How, open_image, parse_cache
from blockyard_tools.progress import Meter

if TYPE_CHECKING:
    from blockyard.image import Image
    from blockyard.root import Root
    from blockyard.yard import Yard
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="rebase",
    summary="Change the backing file of an image",
    usage="[-f FMT | --image-opts] [-t CACHE]\n"
    "[-b BACKING_FILE [-B BACKING_FMT] [-T BACKING_CACHE]] [-u]\n"
    "[-c] [-U] [-p] [-q] [--object OBJDEF] FILE",
    options=(
        *common("format", "image-opts", "cache"),
        Opt("backing|b=", "the new backing file; none if empty", "BACKING_FILE"),
        Opt(
            "backing-format|B=",
            "the backing file's format (-F is the same)",
            "BACKING_FMT",
            also="|F=",
        ),
        Opt("backing-cache|T=", "how the backing files are cached", "BACKING_CACHE"),
        Opt("backing-unsafe|u", "only write the new name, and copy nothing"),
        Opt("compress|c", "compress what is copied"),
        *common("force-share", "progress", "quiet", "object"),
    ),
    words=(("FILE", "the image that gets another backing file"),),
    more="""\
Without -u what the image shows stays the same: where the two backing files differ,
the old one's data is copied.

Examples:
  qemu-img rebase -b newer.qcow2 -B qcow2 overlay.qcow2
  qemu-img rebase -b "" overlay.qcow2""",
)

_ENOSPC = 28


@attrs.frozen(kw_only=True)
class _New:
    """The new backing file."""

    name: str
    format: str | None
    cache: str

    async def open(self, yard: Yard, image: Image) -> Image:
        """The name is seen from the image; what is recorded is the name as it is."""
        from blockyard.imagename import absolute

        name = absolute(image.node, self.name)
        try:
            return await open_image(yard, name, How(format=self.format, cache=self.cache))
        except BlockyardError as error:
            raise failed(f"Could not open new backing file '{self.name}': {error}") from error


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    name = one_file(COMMAND, line)
    unsafe, backing = line.has("backing-unsafe"), line.last("backing")
    if not unsafe and backing is None:
        raise COMMAND.wrong("Must specify backing file (-b) or use unsafe mode (-u)")
    cache = parse_cache(PROGRAM, line.last("backing-cache") or "writeback", "source cache")
    formats = [each.argument for each in line if each.name in ("backing-format", "-F")]
    new = _New(name=backing or "", format=formats[-1] if formats else None, cache=cache)
    how = how_of(COMMAND, line, writable=True, backing=not unsafe, options={"discard": "unmap"})

    async def body(yard: Yard) -> int:
        meter = Meter(on=line.has("progress") and not line.has("quiet"))
        try:
            async with AsyncExitStack() as stack:
                image = await stack.enter_async_context(opened(yard, name, how))
                _check(yard, line, image, new)
                if not unsafe:
                    await _copy(yard, stack, meter, image, new, compress=line.has("compress"))
                await _record(yard, image, new)
            meter.finish()
        finally:
            meter.end()
        return 0

    return work(line, body)


def _check(yard: Yard, line: Line, image: Image, new: _New) -> None:
    from blockyard.errors import UnknownPlugin

    if line.has("compress") and not image.node.type.compresses:
        raise failed("Compression not supported for this file format")
    if new.format is not None:
        try:
            yard.registry.driver(new.format)
        except UnknownPlugin as error:
            raise failed(f"Invalid format name: '{new.format}'") from error


async def _copy(
    yard: Yard,
    stack: AsyncExitStack,
    meter: Meter,
    image: Image,
    new: _New,
    *,
    compress: bool,
) -> None:
    """Where the image has nothing and the backing files differ, give it the old one's data."""
    from blockyard.copying import Copier, CopyFailed, Range

    reference = await stack.enter_async_context(await new.open(yard, image)) if new.name else None
    old = await _old_root(yard, stack, image)
    unit = image.limits.cluster_size if compress else _least(image)
    copier = Copier(
        yard.control,
        image.root,
        [Range(source=old, bytes=image.length)],
        chunk=max(1 << 20, unit),
        unit=unit,
        # Over another backing file zeroes are data.
        sparse=4096 if reference is None else 0,
        reference=reference.root if reference else None,
        missing=True,
        compressed=compress,
        target_is_zero=reference is None,
    )
    try:
        await copied(copier, meter)
    except CopyFailed as error:
        raise failed(_told(error)) from error


def _told(error: BlockyardError) -> str:
    from blockyard.copying import CopyFailed, Side

    assert isinstance(error, CopyFailed)
    if error.side is Side.WRITE:
        return f"Error while writing to COW image: {error}"
    if error.side is Side.STATUS:
        return f"error while reading image metadata: {error}"
    which = "new" if error.index is None else "old"
    return f"error while reading from {which} backing file"


def _least(image: Image) -> int:
    """Bytes of the smallest piece that the image can have without the rest of a cluster."""
    cluster = image.limits.cluster_size
    return image.limits.write_zeroes_alignment or cluster


async def _old_root(yard: Yard, stack: AsyncExitStack, image: Image) -> Root | None:
    from blockyard.permission import ALL, Perm

    child = image.node.children.get("backing")
    if child is None:
        return None
    async with yard.graph.writer:
        root = await yard.graph.attach_root(child.node, Perm.CONSISTENT_READ, ALL)
    stack.push_async_callback(yard.graph.detach_root, root)
    return root


async def _record(yard: Yard, image: Image, new: _New) -> None:
    what = f"Could not change the backing file to '{new.name}'"
    if new.name and new.format is None:
        raise failed(f"{what}: backing format must be specified")
    try:
        async with yard.graph.writer:
            await image.node.driver.change_backing(new.name or None, new.format)
            image.node.record_backing(new.name, new.format)
    except ImageIOError as error:
        if error.errno == _ENOSPC:
            raise failed(f"{what}: No space left in the file header") from error
        raise failed(f"{what}: {error}") from error
