# SPDX-License-Identifier: Apache-2.0
"""Images for programs: opened without a daemon, listed, mapped, read.

::

    async with Yard() as yard, await open_in(yard, "disk.qcow2") as image:
        for each in await image.snapshots():
            print(each.name)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from blockyard import bitmaps
from blockyard.errors import InvalidOption, NotFound
from blockyard.image import Image
from blockyard.node import Node
from blockyard.request import StatusFlags
from blockyard.schema import visit
from blockyard.schema.qom import ObjectOptions
from blockyard_formats_qcow2 import snapshot as snapshot_table
from blockyard_formats_qcow2.fileobject import options_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from blockyard.request import BlockStatus
    from blockyard.root import Root
    from blockyard.schema.blockinfo import SnapshotInfo
    from blockyard.yard import Yard
    from blockyard_formats_qcow2.driver import Qcow2Driver

__all__ = ["Extent", "Qcow2Image", "StoredBitmap", "open_in"]


@attrs.frozen(kw_only=True)
class Extent:
    """A range of the disk whose state is the same; offsets and lengths in bytes."""

    offset: int
    length: int
    #: There is data to be read.
    data: bool
    #: It reads as zeroes.
    zero: bool
    compressed: bool
    #: Layers above the one that decided the content; 0 is this image.
    depth: int
    #: Where the data is in :attr:`file`; None for zeroes, compressed and encrypted data.
    host_offset: int | None
    #: The name of the file that holds it, where that has a plain name.
    file: str | None


@attrs.frozen(kw_only=True)
class StoredBitmap:
    """A dirty bitmap that the image stores."""

    name: str
    #: Bytes that a bit stands for.
    granularity: int
    #: It records writes.
    recording: bool
    #: It was not stored properly: what it shows is not to be trusted.
    in_use: bool


class Qcow2Image(Image):
    """An open image: all of :class:`~blockyard.image.Image`, and what qcow2 has besides."""

    def __init__(self, yard: Yard, root: Root, secrets: tuple[str, ...] = ()) -> None:
        super().__init__(yard, root)
        self._secrets = secrets

    @property
    def _driver(self) -> Qcow2Driver:
        driver: Qcow2Driver = self.node.driver  # type: ignore[assignment]
        return driver

    async def snapshots(self) -> list[SnapshotInfo]:
        """The internal snapshots, in the table's order.

        :raises ImageIOError: with QEMU's text, if the table is bad.
        """
        if self._driver.found.header.has_data_file:
            return []
        return await self._driver.snapshots()

    def bitmaps(self) -> list[StoredBitmap]:
        """The dirty bitmaps that the image stores."""
        return [
            StoredBitmap(
                name=entry.name,
                granularity=entry.granularity,
                recording=entry.recording,
                in_use=entry.in_use,
            )
            for entry in self._driver.stored_bitmaps.entries
        ]

    def dirty(self, name: str) -> Iterator[tuple[int, int]]:
        """Offset and length of each range that the bitmap ``name`` shows as changed.

        :raises NotFound: if there is no such bitmap.
        :raises InvalidOption: if it was not stored properly.
        """
        found = bitmaps.find(self.node, name)
        if found is None:
            raise NotFound(f"Dirty bitmap '{name}' not found")
        if found.inconsistent:
            raise InvalidOption(f"Bitmap '{name}' is inconsistent and cannot be used")
        return iter(found.areas())

    async def map(self, offset: int = 0, length: int | None = None) -> AsyncIterator[Extent]:
        """The extents of a range, the whole disk by default, in their order."""
        end = self.length if length is None else offset + length
        while offset < end:
            status = await self.block_status(offset, end - offset)
            yield extent(offset, status)
            offset += status.bytes

    async def info(self) -> dict[str, Any]:
        """What the header tells, with QAPI's names (ImageInfoSpecificQCow2)."""
        told = await self._driver.image_info()
        return dict(told["format-specific"]["data"])

    async def close(self) -> None:
        """Give the image up, and the keys."""
        await super().close()
        secrets, self._secrets = self._secrets, ()
        for name in secrets:
            await self._yard.objects.delete(name)


def extent(offset: int, status: BlockStatus) -> Extent:
    """The status of the range that begins at ``offset``."""
    owner = status.owner if isinstance(status.owner, Node) else None
    return Extent(
        offset=offset,
        length=status.bytes,
        data=status.data,
        zero=status.zero,
        compressed=bool(status.flags & StatusFlags.COMPRESSED),
        depth=status.depth,
        host_offset=status.host_offset if status.flags & StatusFlags.OFFSET else None,
        file=owner.driver.exact_filename() if owner is not None else None,
    )


async def open_in(
    yard: Yard,
    source: Any,
    /,
    *,
    writable: bool = False,
    snapshot: str | None = None,
    secrets: Mapping[str, bytes] | None = None,
    **options: Any,
) -> Qcow2Image:
    """Open an image in ``yard``.

    ``source`` holds it: a path, a seekable binary file object, blockdev-add's options of any
    node, or a :class:`~blockyard.node.Node` that is there.  ``snapshot``: show what the disk
    was in the internal snapshot of this id or name.  ``secrets`` are objects, by their ids,
    for as long as the image is open, which ``encrypt`` can name.  Other ``options`` are
    those of the driver, underscores for dashes.

    :raises BlockyardError: with QEMU's text; nothing is left open then.
    :raises InvalidOption: for a snapshot that should be written to.
    """
    if snapshot is not None and writable:
        raise InvalidOption("A snapshot cannot be written to")
    named = await _add_secrets(yard, secrets or {})
    try:
        return await _open(yard, source, snapshot, named, {"read_only": not writable, **options})
    except BaseException:
        for name in named:
            await yard.objects.delete(name)
        raise


async def _open(
    yard: Yard, source: Any, snapshot: str | None, secrets: tuple[str, ...], options: dict[str, Any]
) -> Qcow2Image:
    opened = await yard.open(driver="qcow2", file=_child(yard, source), **options)
    image = Qcow2Image(yard, opened.root, secrets)
    if snapshot is not None:
        try:
            await _show(yard, image, snapshot)
        except BaseException:
            await Image.close(image)
            raise
    return image


async def _show(yard: Yard, image: Qcow2Image, snapshot: str) -> None:
    node, driver = image.node, image._driver
    async with yard.graph.writer, yard.graph.drained([node]):
        await snapshot_table.show(driver.image, snapshot, with_size=True)
        yard.graph.carrier.set_length(node, driver.image.state().size)


def _child(yard: Yard, source: Any) -> Any:
    if isinstance(source, Node):
        return source.name
    if isinstance(source, Mapping):
        return dict(source)
    if isinstance(source, str | os.PathLike):
        return {"driver": "file", "filename": os.fspath(source)}
    return options_of(source, yard.registry)


async def _add_secrets(yard: Yard, secrets: Mapping[str, bytes]) -> tuple[str, ...]:
    from base64 import b64encode

    added: list[str] = []
    try:
        for name, data in secrets.items():
            text = b64encode(data).decode()
            options = {"qom-type": "secret", "id": name, "data": text, "format": "base64"}
            await yard.objects.add(visit(ObjectOptions, options))
            added.append(name)
    except BaseException:
        for name in added:
            await yard.objects.delete(name)
        raise
    return tuple(added)
