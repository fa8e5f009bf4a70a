# SPDX-License-Identifier: Apache-2.0
"""The control half of ``luks``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from blockyard.errors import BlockyardError, InvalidOption, from_errno
from blockyard.node import Child, Driver, Node, Opened
from blockyard.permission import Perm, default_permissions
from blockyard.request import Limits
from blockyard.schema import dump
from blockyard_formats_luks.amend import amend_luks
from blockyard_formats_luks.header import SECTOR
from blockyard_formats_luks.native import ffi, lib
from blockyard_formats_luks.storage import storage_in
from blockyard_formats_luks.volume import open_luks
from blockyard_objects_secret.lookup import passphrase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blockyard.imagework import Measure
    from blockyard_formats_luks.volume import Volume

__all__ = ["LuksDriver"]

_MAX_SIZE = (1 << 63) - 1
#: A request's buffer is no longer than this; longer ones are worked on in pieces.
_MAX_TRANSFER = 1 << 20


class LuksDriver(Driver):
    """A disk behind a cipher, with its header before it or in a node of its own."""

    def __init__(self, options: Any, node: Any) -> None:
        super().__init__(options, node)
        self._volume: Volume | None = None
        self._state = ffi.NULL
        #: Key slots are being changed, which nobody else may look at.
        self._amending = False

    @property
    def file(self) -> Node:
        """The node that holds the data."""
        return self.node.children["file"].node

    @property
    def header(self) -> Node:
        """The node that holds the header."""
        return self.node.children.get("header", self.node.children["file"]).node

    @property
    def volume(self) -> Volume:
        """What is open."""
        assert self._volume is not None
        return self._volume

    # -- life

    async def open(self) -> Opened:
        """Find the key slot that the secret opens.

        :raises BlockyardError: with QEMU's text.
        """
        word = None if self.node.without_contents else self._passphrase()
        async with storage_in(self.node.graph.carrier, self.header) as storage:
            self._volume = await open_luks(
                storage.read, word, detached="header" in self.node.children
            )
        try:
            return self._opened(self._volume)
        except BaseException:
            await self.close()
            raise

    def _passphrase(self) -> bytes:
        if self.options.key_secret is None:
            raise InvalidOption("Parameter 'key-secret' is required for cipher")
        return passphrase(self.node.graph.objects, self.options.key_secret)

    def _opened(self, volume: Volume) -> Opened:
        length = self._length()
        if length is None:
            raise from_errno(errno.EIO, "Could not refresh total sector count")
        self._state = lib.by_luks_create(
            ffi.cast("struct by_crypto *", volume.address), volume.payload_offset
        )
        if self._state == ffi.NULL:
            raise MemoryError("by_luks_create")
        return Opened(
            ops=lib.by_luks_ops(),
            state=int(ffi.cast("uintptr_t", self._state)),
            length=length,
            limits=Limits(request_alignment=SECTOR, max_transfer=_MAX_TRANSFER),
        )

    async def close(self) -> None:
        """Wipe the keys."""
        lib.by_luks_free(self._state)
        self._state = ffi.NULL
        if self._volume is not None:
            self._volume.close()

    def _length(self) -> int | None:
        """In whole sectors, as QEMU counts; None if the data begins behind the file's end."""
        length = self.file.length - self.volume.payload_offset
        return None if length < 0 else -(-length // SECTOR) * SECTOR

    # -- permissions

    def child_permissions(self, child: Child, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """As a filter's for writing and resizing, and exclusive while key slots change."""
        node = self.node
        wanted, offered = default_permissions(
            child.role, perm, shared, writable=node.writable, inactive=not node.active
        )
        changes = Perm.WRITE | Perm.RESIZE
        wanted = (wanted & ~changes) | (perm & changes)
        offered |= shared & changes
        if self._amending:
            wanted |= Perm.WRITE
            offered &= ~(Perm.CONSISTENT_READ | Perm.WRITE)
        return wanted, offered

    # -- reopen and resize

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        """The flags may change; the options stay."""

    def child_resized(self, child: Child) -> int | None:
        """What the file has behind the header."""
        return (self._length() or 0) if child.name == "file" else None

    async def check_resize(self, length: int) -> None:
        """Header and data fit into 63 bits.

        :raises InvalidOption: if they do not.
        """
        if length > _MAX_SIZE - self.volume.payload_offset:
            raise InvalidOption("The requested file size is too large")
        await self.file.driver.check_resize(length + self.volume.payload_offset)

    def truncate_error(self, length: int, prealloc: str, error: BlockyardError) -> BlockyardError:
        """The file's own words: the request was its."""
        length += self.volume.payload_offset
        return self.file.driver.truncate_error(length, prealloc, error)

    # -- key slots

    async def amend_begin(self) -> None:
        """Have the file to ourselves.

        :raises PermissionConflict: if somebody uses it.
        """
        self._amending = True
        try:
            await self.node.refresh_permissions()
        except BaseException:
            self._amending = False
            raise

    async def amend(self, options: Any, *, force: bool) -> None:
        """Add or erase key slots.

        :raises BlockyardError: with QEMU's text.
        """
        objects = self.node.graph.objects
        async with storage_in(self.node.graph.carrier, self.header) as storage:
            await amend_luks(
                self.volume,
                options,
                storage,
                secret=lambda secret_id: passphrase(objects, secret_id),
                key_secret=self.options.key_secret,
                force=force,
            )

    async def amend_end(self) -> None:
        """Let others use the file again."""
        self._amending = False
        await self.node.refresh_permissions()

    # -- information

    async def image_info(self) -> dict[str, Any]:
        """Cipher and key slots."""
        return {
            "encrypted": True,
            "format-specific": {"type": "luks", "data": dump(self.volume.info)},
        }

    # -- images

    @classmethod
    async def create(cls, options: Any, yard: Any) -> None:
        """Make an image in nodes that exist.

        :raises BlockyardError: with QEMU's text.
        """
        from blockyard_formats_luks.formatting import format_image

        await format_image(options, yard)

    @classmethod
    async def measure(cls, options: Mapping[str, Any], source: Node | None) -> Measure:
        """What is not allocated in the source is encrypted like everything else.

        :raises InvalidOption: for options that make no image.
        """
        from blockyard_formats_luks.formatting import measure_image

        return measure_image(options, source)
