# SPDX-License-Identifier: Apache-2.0
"""What ``convert`` does: the sources opened, the target made, the data copied."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import attrs

from blockyard.copying import Copier, CopyFailed, Range, Side
from blockyard.entrypoints import implementation
from blockyard.errors import BlockyardError, ImageIOError
from blockyard_tools.img.command import failed
from blockyard_tools.img.copying import copied, whole_sectors
from blockyard_tools.img.session import announce, opened
from blockyard_tools.progress import Meter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blockyard.declaration import DriverType
    from blockyard.driver import Driver
    from blockyard.image import Image
    from blockyard.newimage import NewImage
    from blockyard.yard import Yard
    from blockyard_tools.img.convert import Wish

__all__ = ["Conversion"]

_MIN_CHUNK = 1 << 20
_CIPHER_OPTIONS = ("key-secret", "encrypt.format")


class Conversion:
    """One run of ``convert``."""

    def __init__(self, yard: Yard, wish: Wish) -> None:
        self._yard = yard
        self._wish = wish
        self._new: NewImage | None = None

    async def run(self) -> int:
        """Do it; the exit status.

        :raises ProgramError: if it fails.
        """
        wish = self._wish
        meter = Meter(on=wish.progress)
        try:
            async with AsyncExitStack() as stack:
                sources = [
                    await stack.enter_async_context(opened(self._yard, name, wish.source))
                    for name in wish.sources
                ]
                await self._show_snapshot(sources)
                if wish.create:
                    await self._create(sources)
                target = await self._open_target(stack)
                if not wish.create:
                    self._check_target(sources[0], target)
                await self._copy(sources, target, meter)
                if wish.bitmaps:
                    from blockyard_tools.img.bitmapcopy import copy_bitmaps

                    copy_bitmaps(sources[0], target)
            meter.finish()
        finally:
            meter.end()
        return 0

    # -- the sources

    async def _show_snapshot(self, sources: list[Image]) -> None:
        text = self._wish.snapshot
        if text is None:
            return
        if len(sources) > 1:
            raise failed("No support for concatenating multiple snapshot")
        from blockyard_tools.img.snapshotchoice import choose

        try:
            await choose(sources[0], text)
        except BlockyardError as error:
            raise failed(f"Failed to load snapshot: {error}") from error

    # -- the target

    async def _create(self, sources: list[Image]) -> None:
        from blockyard.newimage import NewImage, make_image

        wish = self._wish
        new = await NewImage.find(self._yard.registry, wish.target, wish.format)
        new.take(wish.options)
        if "size" not in new.values:
            new.set("size", str(sum(whole_sectors(image.length) for image in sources)))
        self._give_backing(new, len(sources))
        if wish.compress:
            _check_compressible(new.driver, new.values)
        if wish.bitmaps:
            self._check_bitmaps(sources[0], implementation(new.driver), new.driver.name)
        self._new = new
        try:
            await make_image(self._yard, new)
        except BlockyardError as error:
            raise failed(f"{wish.target}: error while converting {wish.format}: {error}") from error

    def _give_backing(self, new: NewImage, sources: int) -> None:
        wish = self._wish
        for option, value, what in (
            ("backing_file", wish.backing, "Backing file"),
            ("backing_fmt", wish.backing_format, "Backing format"),
        ):
            if value is not None:
                if not new.has(option):
                    raise failed(f"{what} not supported for file format '{wish.format}'")
                new.set(option, value)
        if "backing_file" not in new.values:
            return
        if sources > 1:
            raise failed(
                "Having a backing file for the target makes no sense when concatenating "
                "multiple input images"
            )
        if "backing_fmt" not in new.values:
            raise failed("Use of backing file requires explicit backing format")

    def _check_bitmaps(self, source: Image, driver: type[Driver], name: str) -> None:
        from blockyard_tools.img.bitmapcopy import check_bitmaps

        check_bitmaps(source, driver, name, skip_broken=self._wish.skip_broken)

    async def _open_target(self, stack: AsyncExitStack) -> Image:
        # How it was encrypted says how it is opened.
        values = self._new.values if self._new else {}
        how = attrs.evolve(
            self._wish.target_how,
            options={
                **self._wish.target_how.options,
                **{k: v for k, v in values.items() if k.endswith(_CIPHER_OPTIONS)},
            },
        )
        return await stack.enter_async_context(opened(self._yard, self._wish.target, how))

    def _check_target(self, source: Image, target: Image) -> None:
        wish = self._wish
        if wish.compress:
            _check_compressible(target.node.type, {})
        if wish.bitmaps:
            self._check_bitmaps(source, type(target.node.driver), target.node.type.name)

    async def _is_zero(self, target: Image) -> bool:
        """Whether what is not written reads as zeroes."""
        wish = self._wish
        if wish.target_is_zero:
            return True
        if "backing" in target.node.children or not wish.sparse:
            return False
        if self._new is None:
            return await _zeroed(target)
        return await _is_new_zero(self._new, target)

    # -- the copy

    async def _copy(self, sources: list[Image], target: Image, meter: Meter) -> None:
        wish = self._wish
        total = sum(whole_sectors(image.length) for image in sources)
        if self._new is None and target.length < total:
            raise failed("output file is smaller than input file")
        cluster = target.limits.cluster_size
        if wish.compress and not cluster:
            raise failed("could not get block driver info")
        # Each cluster is compressed by itself, if it is not zero.
        sparse = cluster if wish.compress and wish.sparse else wish.sparse
        copier = Copier(
            self._yard.control,
            target.root,
            await self._ranges(sources, target),
            # One after the other, so that what is told of is in the disk's order.
            parallel=1 if wish.salvage else wish.parallel,
            chunk=max(_MIN_CHUNK, sparse, cluster) if wish.compress or sparse else 0,
            unit=cluster if wish.compress else 0,
            sparse=sparse,
            rate=wish.rate,
            in_order=wish.in_order,
            offload=wish.offload,
            salvage=wish.salvage,
            compressed=wish.compress,
            target_is_zero=await self._is_zero(target),
            count=wish.progress or wish.salvage,
            unreadable=self._warn,
        )
        try:
            await copied(copier, meter)
        except CopyFailed as error:
            raise failed(_told(error)) from error

    async def _ranges(self, sources: list[Image], target: Image) -> list[Range]:
        """What to copy; where the target has a backing file, only what the source has itself."""
        wanted = self._wish.backing is not None or self._new is not None
        backing = target.node.children.get("backing") if wanted else None
        ranges: list[Range] = []
        at = 0
        for image in sources:
            size = whole_sectors(image.length)
            own = min(size, backing.node.length) if backing else 0
            if own:
                ranges.append(Range(source=image.root, bytes=own, target_offset=at, layers=1))
            if size > own:
                ranges.append(
                    Range(
                        source=image.root,
                        bytes=size - own,
                        offset=own,
                        target_offset=at + own,
                        target_is_zero=bool(backing and self._new),
                    )
                )
            at += size
        return ranges

    def _warn(self, offset: int, count: int, errno: int, side: Side) -> None:
        import os

        if self._wish.quiet:
            return
        what = "block status at offset" if side is Side.STATUS else "offset"
        announce(f"warning: error while reading {what} {offset}: {os.strerror(errno)}")


def _told(error: CopyFailed) -> str:
    if error.side is Side.STATUS:
        return f"error while reading block status at offset {error.offset}: {error}"
    doing = "reading" if error.side is Side.READ else "writing"
    return f"error while {doing} at byte {error.offset}: {error}"


def _check_compressible(driver: DriverType, values: Mapping[str, str]) -> None:
    if not driver.compresses:
        raise failed("Compression not supported for this file format")
    if values.get("encryption") == "on" or any(k.startswith("encrypt.") for k in values):
        raise failed("Compression and encryption not supported at the same time")
    if values.get("preallocation", "off") != "off":
        raise failed("Compression and preallocation not supported at the same time")


async def _zeroed(target: Image) -> bool:
    """Zero an image that existed, if that is quick."""
    try:
        await target.write_zeroes(0, target.length, may_unmap=True, no_fallback=True)
    except ImageIOError:
        return False
    return True


async def _is_new_zero(new: NewImage, target: Image) -> bool:
    """New files read as zeroes, unless what is read of them is decrypted."""
    from blockyard.newimage import creation_of

    protocol = creation_of(new.protocol)
    fresh = protocol is not None and not protocol.existing
    if fresh and not any("key-secret" in name for name in new.values):
        return True
    offset = 0
    while offset < target.length:
        status = await target.block_status(offset, target.length - offset)
        if not status.zero:
            return False
        offset += status.bytes
    return True
