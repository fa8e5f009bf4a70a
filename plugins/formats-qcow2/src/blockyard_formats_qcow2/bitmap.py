# SPDX-License-Identifier: Apache-2.0
"""Persistent dirty bitmaps: loaded when an image is opened, stored when it is closed.

While an image is open for writing, what it stores of its bitmaps says *in use*, so
that whoever finds it so after a crash knows not to trust them (section "Bitmap
directory").  The directory is changed only while its autoclear bit is off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio.lowlevel
import attrs

from blockyard import bitmaps
from blockyard.errors import BlockyardError, InvalidOption, from_errno
from blockyard_formats_qcow2.bitmapdir import (
    BitmapFlags,
    Entry,
    build_directory,
    check_constraints,
    parse_directory,
)
from blockyard_formats_qcow2.extension import MAX_BITMAPS, MAX_DIRECTORY_BYTES, BitmapsExtension
from blockyard_formats_qcow2.header import Autoclear
from blockyard_formats_qcow2.image import failed
from blockyard_formats_qcow2.native import ffi, lib

if TYPE_CHECKING:
    from blockyard.dirtybitmap import DirtyBitmap
    from blockyard.node import Node
    from blockyard_formats_qcow2.image import OpenImage

__all__ = ["ImageBitmaps"]

_DIRECTORY = lib.BY_QCOW2_OL_BITMAP_DIRECTORY


@attrs.define(eq=False)
class ImageBitmaps:
    """The bitmaps that an open image stores."""

    image: OpenImage
    entries: list[Entry] = attrs.field(factory=list)

    # -- reading

    async def read(self, length: int) -> list[Entry]:
        """The directory, of a disk of ``length`` bytes; :attr:`entries` from now on.

        :raises BlockyardError: with QEMU's text.
        """
        self.entries = []
        if self.image.has_bitmaps:
            found = self.image.extensions.bitmaps
            assert found is not None
            data = await self._directory(found)
            size = self.image.header.cluster_size
            self.entries = parse_directory(data, found.count, size, length)
        return self.entries

    async def _directory(self, found: BitmapsExtension) -> bytes:
        if found.directory_size == 0:
            raise InvalidOption("Requested bitmap directory size is zero")
        try:
            return await self.image.read(found.directory_offset, found.directory_size)
        except BlockyardError as error:
            raise failed(error, "Failed to read bitmap directory") from error

    async def load(self, node: Node, length: int, *, writable: bool) -> None:
        """Give ``node`` the image's bitmaps; one that is writable they then are in use by.

        :raises BlockyardError: with QEMU's text.
        """
        for entry in await self.read(length):
            bitmap = bitmaps.load(
                node,
                entry.name,
                entry.granularity,
                length,
                recording=entry.recording,
                read_only=not writable,
                inconsistent=entry.in_use,
            )
            if entry.in_use:
                await anyio.lowlevel.checkpoint()  # there may be 65535
            else:
                await self._fill(bitmap, entry)
        if writable:
            await self.mark_in_use()

    async def _fill(self, bitmap: DirtyBitmap, entry: Entry) -> None:
        count = bitmap.serialised_bytes
        data = ffi.new("char[]", max(count, 1))
        try:
            await self.image.call(
                lib.by_qcow2_bitmap_load, entry.table_offset, entry.table_entries, data, count
            )
        except BlockyardError as error:
            context = f"Could not read bitmap '{entry.name}' from image"
            raise failed(error, context) from error
        bitmap.deserialise(0, bytes(ffi.buffer(data, count)))

    # -- writing

    async def mark_in_use(self) -> None:
        """Let the image say that its bitmaps are not what they were.

        :raises BlockyardError: with QEMU's text.
        """
        if all(entry.in_use for entry in self.entries):
            return
        changed = [
            attrs.evolve(entry, flags=entry.flags | BitmapFlags.IN_USE) for entry in self.entries
        ]
        found = self.image.extensions.bitmaps
        assert found is not None
        try:
            await self._vouch(False)
            await self.image.write(found.directory_offset, build_directory(changed), _DIRECTORY)
            await self.image.flush()
            await self._vouch(True)
        except BlockyardError as error:
            raise failed(error, "Can't update bitmap directory") from error
        self.entries = changed

    async def _vouch(self, good: bool) -> None:
        bits = self.image.header.autoclear & ~int(Autoclear.BITMAPS)
        await self.image.rewrite(autoclear=bits | (Autoclear.BITMAPS if good else 0))

    async def store(self, node: Node) -> None:
        """Put the content of the node's bitmaps into the image.  Drained.

        :raises BlockyardError: with QEMU's text; what is stored says in use then.
        """
        new: dict[str, Entry] = {}
        try:
            for bitmap in bitmaps.to_store(node):
                self._check_storable(bitmap)
                new[bitmap.name] = await self._store_one(bitmap)
            replaced = [entry for entry in self.entries if entry.name in new]
            if new:
                added = [new[name] for name in new if name not in {e.name for e in self.entries}]
                await self._replace([*(new.get(e.name, e) for e in self.entries), *added])
        except BlockyardError:
            for entry in new.values():
                await self._free(entry)
            raise
        for entry in replaced:
            await self._free(entry)

    def _check_storable(self, bitmap: DirtyBitmap) -> None:
        header = self.image.header
        if header.version < 3:
            raise InvalidOption("Cannot store dirty bitmaps in qcow2 v2 files")
        try:
            check_constraints(bitmap.name, bitmap.granularity, header.cluster_size, bitmap.length)
        except BlockyardError as error:
            context = f"Bitmap '{bitmap.name}' doesn't satisfy the constraints"
            raise failed(error, context) from error

    async def _store_one(self, bitmap: DirtyBitmap) -> Entry:
        count = bitmap.serialised_bytes
        data = bytearray(count)
        for at, piece in bitmap.pieces(1 << 20):
            data[at : at + len(piece)] = piece
        offset, entries = ffi.new("uint64_t *"), ffi.new("uint32_t *")
        try:
            await self.image.call(
                lib.by_qcow2_bitmap_store, ffi.from_buffer(data), count, offset, entries
            )
        except BlockyardError as error:
            raise failed(error, f"Failed to write bitmap '{bitmap.name}' to file") from error
        return Entry(
            name=bitmap.name,
            granularity_bits=bitmap.granularity.bit_length() - 1,
            table_offset=int(offset[0]),
            table_entries=int(entries[0]),
            flags=BitmapFlags.AUTO if bitmap.recording else BitmapFlags(0),
        )

    async def _replace(self, entries: list[Entry]) -> None:
        """Write a new directory and let the header point to it."""
        old, image = self.image.extensions.bitmaps, self.image
        new = None
        data = build_directory(entries)
        if len(entries) > MAX_BITMAPS:
            raise InvalidOption("Too many persistent bitmaps")
        if len(data) > MAX_DIRECTORY_BYTES:
            raise InvalidOption("Bitmap directory is too large")
        if entries:
            new = await self._write_directory(entries, data)
        bits = image.header.autoclear & ~int(Autoclear.BITMAPS)
        try:
            await image.rewrite(
                extensions=attrs.evolve(image.extensions, bitmaps=new, stale_bitmaps=False),
                autoclear=bits | (Autoclear.BITMAPS if new else 0),
            )
        except BlockyardError:
            if new:
                await image.release(new.directory_offset, new.directory_size, _DIRECTORY)
            raise
        self.entries = entries
        if old:
            await image.release(old.directory_offset, old.directory_size, _DIRECTORY)

    async def _write_directory(self, entries: list[Entry], data: bytes) -> BitmapsExtension:
        try:
            offset = await self.image.allocate(len(data), _DIRECTORY)
        except BlockyardError as error:
            raise failed(error, "Failed to allocate space for bitmap directory") from error
        await self.image.write(offset, data, _DIRECTORY)
        await self.image.flush()
        return BitmapsExtension(
            count=len(entries), directory_offset=offset, directory_size=len(data)
        )

    async def _free(self, entry: Entry) -> None:
        await self.image.call(lib.by_qcow2_bitmap_free, entry.table_offset, entry.table_entries)

    # -- for QMP

    def check_new(self, node: Node, name: str, granularity: int) -> None:
        """Refuse a new persistent bitmap that the image could not store.

        A name that is taken is refused by core, whatever the image could store.

        :raises BlockyardError: with QEMU's text.
        """
        if bitmaps.find(node, name) is not None:
            return
        try:
            self._check_new(node, name, granularity)
        except BlockyardError as error:
            context = f"Can't make bitmap '{name}' persistent in '{node.name}'"
            raise failed(error, context) from error

    def _check_new(self, node: Node, name: str, granularity: int) -> None:
        header = self.image.header
        if header.version < 3:
            raise InvalidOption("Cannot store dirty bitmaps in qcow2 v2 files")
        check_constraints(name, granularity, header.cluster_size, node.length)
        names = {entry.name for entry in self.entries}
        names |= {bitmap.name for bitmap in bitmaps.persistent(node)}
        if len(names) >= MAX_BITMAPS:
            raise from_errno(75, "Maximum number of persistent bitmaps is already reached")
        size = sum(len(_sized(each)) for each in (*names, name))
        if size > MAX_DIRECTORY_BYTES:
            raise InvalidOption("Not enough space in the bitmap directory")

    async def remove(self, name: str) -> None:
        """Drop what the image stores of a bitmap; none there is no error.

        :raises BlockyardError: with QEMU's text.
        """
        gone = [entry for entry in self.entries if entry.name == name]
        if not gone:
            return
        try:
            await self._replace([entry for entry in self.entries if entry.name != name])
        except BlockyardError as error:
            raise failed(error, "Failed to update bitmap extension") from error
        for entry in gone:
            await self._free(entry)


def _sized(name: str) -> bytes:
    """A directory's entry of that name, for its length."""
    return Entry(
        name=name, granularity_bits=16, table_offset=0, table_entries=0, flags=BitmapFlags(0)
    ).pack()
