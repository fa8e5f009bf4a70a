# SPDX-License-Identifier: Apache-2.0
"""The image that is to be served, as the options say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard_tools.error import ProgramError
from blockyard_tools.nbd.options import PROGRAM

if TYPE_CHECKING:
    from blockyard.image import Image
    from blockyard.yard import Yard
    from blockyard_tools.nbd.options import Settings, SnapshotChoice

__all__ = ["open_served", "writes_through"]


def writes_through(settings: Settings) -> bool:
    """Whether every write is on stable storage when it is answered."""
    from blockyard_tools.opening import CACHE_MODES

    return not CACHE_MODES[settings.cache or "writeback"][2]


async def open_served(yard: Yard, settings: Settings) -> Image:
    """Open the image, with what lies over it: a temporary overlay, an offset.

    :raises ProgramError: in qemu-nbd's words.
    """
    from blockyard.errors import BlockyardError

    if settings.image_opts and settings.format is not None:
        raise ProgramError(PROGRAM, "--image-opts and -f are mutually exclusive")
    try:
        image = await _open(yard, settings)
    except BlockyardError as error:
        raise ProgramError(
            PROGRAM, f"Failed to blk_new_open '{settings.image}': {error}"
        ) from error
    try:
        if settings.offset:
            image = await _behind_offset(yard, image, settings.offset)
        if settings.load_snapshot is not None:
            await _load_snapshot(image, settings.load_snapshot)
    except BlockyardError as error:
        raise ProgramError(PROGRAM, str(error)) from error
    return image


async def _open(yard: Yard, settings: Settings) -> Image:
    from blockyard.errors import InvalidOption
    from blockyard.permission import ALL, NONE, Perm
    from blockyard_tools.opening import How, open_image

    if settings.format == "":
        raise InvalidOption("Unknown driver ''")
    writable = not (settings.read_only or settings.snapshot or settings.load_snapshot)
    how = How(
        format=settings.format,
        image_opts=settings.image_opts,
        writable=writable,
        cache=settings.cache or "writeback",
        options=_options(settings),
    )
    perm = Perm.CONSISTENT_READ | (Perm.WRITE if writable else NONE)
    image = await open_image(yard, settings.image, how, perm=perm, shared=ALL)
    if settings.snapshot and not settings.load_snapshot:
        from blockyard_tools.io.layering import add_overlay

        return await _shared(yard, await add_overlay(yard, image, writable=True))
    return image


async def _shared(yard: Yard, image: Image) -> Image:
    """A handle that leaves it to the export to write; the first one is closed."""
    try:
        return await yard.attach(image.node.name, writable=False, share_writes=True)
    finally:
        await image.close()


def _options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.discard is not None:
        options["discard"] = "unmap" if settings.discard else "ignore"
    if settings.detect_zeroes != "off":
        options["detect-zeroes"] = settings.detect_zeroes
    if settings.aio is not None:
        options["file.aio"] = settings.aio
    return options


async def _behind_offset(yard: Yard, image: Image, offset: int) -> Image:
    """What follows the first bytes of the image."""
    from blockyard.image import Image
    from blockyard.permission import ALL, Perm
    from blockyard.schema import visit
    from blockyard.schema.block import BlockdevOptions

    options = {
        "driver": "raw",
        "offset": offset,
        "file": image.node.name,
        "read-only": image.node.read_only,
    }
    perm = Perm.CONSISTENT_READ
    async with yard.graph.writer:
        node = await yard.graph.add(visit(BlockdevOptions, options), monitor_owned=False)
        made = Image(yard, await yard.graph.attach_root(node, perm, ALL))
    await image.close()
    return made


async def _load_snapshot(image: Image, choice: SnapshotChoice) -> None:
    from blockyard.errors import BlockyardError, Unsupported
    from blockyard.imagework import ImageWork

    driver = image.node.driver
    try:
        if type(driver).snapshot_show is ImageWork.snapshot_show:
            raise Unsupported(
                f"Block format '{image.node.type.name}' used by device '' does not support "
                "temporarily loading internal snapshots"
            )
        wanted = (choice.id, choice.name)
        if choice.either is not None:
            ids = [each.id for each in await driver.snapshots()]
            wanted = (choice.either, None) if choice.either in ids else (None, choice.either)
        await driver.snapshot_show(*wanted)
    except BlockyardError as error:
        raise BlockyardError(f"Failed to load snapshot: {error}") from error
