# SPDX-License-Identifier: Apache-2.0
"""The control half of ``qcow2``: opening, closing, reopening, activity, information."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from blockyard import bitmaps
from blockyard.corruption import report_corruption
from blockyard.errors import BlockyardError, ImageIOError, from_errno
from blockyard.node import Child, Node, Opened
from blockyard.permission import Perm, Role
from blockyard.request import Limits
from blockyard_formats_qcow2.bitmap import ImageBitmaps
from blockyard_formats_qcow2.encryption import open_cipher
from blockyard_formats_qcow2.header import KNOWN_AUTOCLEAR, Incompatible
from blockyard_formats_qcow2.image import (
    OpenImage,
    Why,
    address,
    addresses,
    aside,
    native_settings,
)
from blockyard_formats_qcow2.information import image_info
from blockyard_formats_qcow2.native import ffi, lib
from blockyard_formats_qcow2.reading import Found, parse_header, read_start
from blockyard_formats_qcow2.work import Qcow2Work

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blockyard.loop import Event

__all__ = ["Qcow2Driver"]

_log = logging.getLogger(__name__)
_SECTOR = 512
_FATAL, _HAS_OFFSET = 1, 2


class Qcow2Driver(Qcow2Work):
    """An image in the file, with its data there or in a file of its own."""

    def __init__(self, options: Any, node: Any) -> None:
        super().__init__(options, node)
        self._found: Found | None = None
        self._next: Found | None = None
        self._image: OpenImage | None = None
        self._bitmaps: ImageBitmaps | None = None
        self._cipher: Any = None
        self._tag = 0
        self._cleaning: anyio.CancelScope | None = None

    @property
    def file(self) -> Node:
        """The node that holds the image."""
        return self.node.children["file"].node

    @property
    def image(self) -> OpenImage:
        """What is open."""
        assert self._image is not None
        return self._image

    @property
    def stored_bitmaps(self) -> ImageBitmaps:
        """The bitmaps that the image stores."""
        assert self._bitmaps is not None
        return self._bitmaps

    @property
    def cipher(self) -> Any:
        """What encrypts the data; None if it is not encrypted."""
        return self._cipher

    @property
    def found(self) -> Found:
        """The header as it was found last, and what the options come to."""
        assert self._found is not None
        return self._found

    # -- opening

    async def named_children(self) -> Mapping[str, Any]:
        """Read the header; it may name a data file and a backing file.

        :raises BlockyardError: with QEMU's text.
        """
        found = self._found = await self._read_header()
        extensions = found.extensions
        self.node.record_backing(extensions.backing_file, extensions.backing_format)
        self.check_data_file(found)
        if not found.header.has_data_file:
            return {}
        if self.node.children["file"].role & Role.DATA:
            self.node.children["file"].role &= ~Role.DATA
        if extensions.data_file is None or self.node.without_contents:
            return {}
        return {"data-file": await self.data_file_options(extensions.data_file)}

    async def _read_header(self) -> Found:
        """What the file begins with, for the node's present flags and options."""
        try:
            async with self.node.reading("file") as access:
                data = await read_start(access.read, self.file.length)
        except BlockyardError as error:
            number = getattr(error, "errno", None) or 5
            raise from_errno(number, "Could not read qcow2 header") from error
        return parse_header(
            data,
            writable=self.node.writable,
            options=self.options,
            unmap=self.node.discard == "unmap",
            check=self.node.checking,
        )

    async def open(self) -> Opened:
        """Read the tables, mend what a crash has left, and load the bitmaps.

        :raises BlockyardError: with QEMU's text.
        """
        self.check_data_node(self.found)
        self._tag = self.node.graph.carrier.control.tag(self._corrupted)
        try:
            await self._open_native()
            if self.node.writable:
                await self._make_ready()
            if self.node.active:
                await self.stored_bitmaps.load(
                    self.node, self.image.state().size, writable=self.node.writable
                )
            if self.node.writable and not self.node.checking:
                await self._mend()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.close()
            raise
        self._start_cleaning()
        return Opened(
            ops=lib.by_qcow2_ops(),
            state=int(ffi.cast("uintptr_t", self.image.native)),
            length=self.image.state().size,
            limits=self._limits(),
        )

    async def _open_native(self) -> None:
        node = self.node
        async with node.reading("file") as access:

            async def read(offset: int, length: int) -> bytes:
                there = max(min(length, self.file.length - offset), 0)
                return await access.read(offset, there) if there else b""

            self._cipher = await open_cipher(
                self.found,
                self.options.encrypt,
                None if node.without_contents else node.graph.objects,
                read,
            )
        self._image = await OpenImage.open(
            addresses(node), self.found, read_only=not node.writable, tag=self._tag
        )
        self._bitmaps = ImageBitmaps(self._image)
        if self._cipher is not None and self._cipher.address:
            lib.by_qcow2_set_crypto(self._image.native, self._cipher.address)

    async def _make_ready(self) -> None:
        """Before the first write: forget what cannot be kept (section "Header")."""
        image = self.image
        unknown = image.header.autoclear & ~KNOWN_AUTOCLEAR
        if not unknown and not image.extensions.stale_bitmaps:
            return
        if image.extensions.stale_bitmaps:
            _log.warning(
                "node '%s': a program lacking bitmap support modified this file, so all bitmaps "
                "are now considered inconsistent",
                self.node.name,
            )
        try:
            await image.rewrite(
                autoclear=image.header.autoclear & KNOWN_AUTOCLEAR,
                extensions=attrs.evolve(image.extensions, stale_bitmaps=False),
            )
        except BlockyardError as error:
            number = getattr(error, "errno", None) or 5
            raise from_errno(number, "Could not update qcow2 header") from error

    async def _mend(self) -> None:
        if self.found.header.incompatible & Incompatible.DIRTY:
            await self.mend_dirty()

    def _limits(self) -> Limits:
        header = self.found.header
        subcluster = header.cluster_size // (32 if header.l2_entry_bytes == 16 else 1)
        return Limits(
            request_alignment=_SECTOR if self._cipher is not None else 1,
            write_zeroes_alignment=subcluster,
            discard_alignment=header.cluster_size,
            cluster_size=header.cluster_size,
        )

    def child_changed(self, name: str) -> None:
        """Tell the native half; core calls it for each child of a new node as well."""
        if self._image is not None:
            lib.by_qcow2_set_node(self._image.native, address(self.node))
            lib.by_qcow2_set_children(self._image.native, *addresses(self.node))

    # -- while it is open

    def _corrupted(self, event: Event) -> None:
        if self._image is None:  # it came too late to be read
            return
        text = ffi.new("char[256]")
        lib.by_qcow2_report(self.image.native, text, 256)
        has_offset = bool(event.a & _HAS_OFFSET)
        report_corruption(
            self.node,
            ffi.string(text).decode(errors="replace"),
            offset=event.b if has_offset else None,
            size=event.result if has_offset and event.result >= 0 else None,
            fatal=bool(event.a & _FATAL),
        )

    def _start_cleaning(self) -> None:
        """Give the memory of unused tables back from time to time."""
        if self._cleaning is not None:
            self._cleaning.cancel()
            self._cleaning = None
        settings = self.found.settings
        if settings is not None and settings.clean_interval:
            self._cleaning = anyio.CancelScope()
            self.node.graph.spawn(self._clean, self._cleaning, settings.clean_interval)

    async def _clean(self, scope: anyio.CancelScope, interval: int) -> None:
        with scope:
            while True:
                await anyio.sleep(interval)
                if self._image is not None:
                    lib.by_qcow2_clean_caches(self._image.native)

    # -- closing

    async def before_close(self) -> None:
        """Store the bitmaps, write the tables, and cut the file's unused end off.

        What was found to be corrupt stays as it is: nothing of it can be trusted.
        """
        if self.node.writable and not self.image.state().corrupt:
            try:
                await self._settle()
            except ImageIOError as error:
                # QEMU's words: it flushes one after the other, and both fail.
                for cache in ("L2 table", "refcount block"):
                    _log.error("Failed to flush the %s cache: %s", cache, error)
        bitmaps.release_stored(self.node)

    async def _settle(self) -> None:
        try:
            await self.stored_bitmaps.store(self.node)
        except BlockyardError as error:
            _log.error(
                "Lost persistent bitmaps during inactivation of node '%s': %s",
                self.node.name,
                error,
            )
        await self.image.call(lib.by_qcow2_settle)

    async def close(self) -> None:
        """Free the native half and the keys."""
        if self._cleaning is not None:
            self._cleaning.cancel()
            self._cleaning = None
        control = self.node.graph.carrier.control
        # What the last writes have found is told while its text can be read.
        control.deliver()
        image, self._image = self._image, None
        if image is not None:
            await image.close()
        if self._cipher is not None:
            self._cipher.close()
            self._cipher = None
        control.release(self._tag)

    # -- activity

    async def set_active(self, active: bool) -> None:
        """Store everything and let go of the image, or read its header and tables again.

        :raises BlockyardError: with QEMU's text.
        """
        if not active:
            if not self.node.read_only:
                await self._settle()
            bitmaps.release_stored(self.node)
            return
        found = await self._read_header()
        extensions = found.extensions
        self.node.record_backing(extensions.backing_file, extensions.backing_format)
        why = Why()
        result = await aside(
            lib.by_qcow2_reload,
            self.image.native,
            native_settings(found, read_only=not self.node.writable),
            why.native,
        )
        if result < 0:
            raise why.error(result, "Could not reopen qcow2 layer")
        self._found = found
        self.image.header, self.image.extensions = found.header, found.extensions
        if self.node.writable:
            await self._make_ready()
        length = self.image.state().size
        await self.stored_bitmaps.load(self.node, length, writable=self.node.writable)
        self.node.graph.carrier.set_length(self.node, length)

    # -- reopening

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        """Check the new options; to become read-only, write everything back.

        :raises BlockyardError: with QEMU's text.
        """
        header = self.image.present_header()
        self._next = self.settle_options(options, header)
        if read_only and not self.image.read_only:
            await self.stored_bitmaps.store(self.node)
            await self.image.call(lib.by_qcow2_settle)

    def reopen_commit(self) -> None:
        """Use the new options."""
        assert self._next is not None
        self._found, self._next = self._next, None
        read_only = not self.node.writable
        settings = native_settings(self._found, read_only=read_only)
        result = lib.by_qcow2_reconfigure(self.image.native, settings)
        if result < 0:
            _log.warning("reopening node '%s': %s", self.node.name, from_errno(result))
        was_read_only, self.image.read_only = self.image.read_only, read_only
        if read_only and not was_read_only:
            for bitmap in bitmaps.persistent(self.node):
                bitmap.read_only = True
        self._start_cleaning()

    async def reopen_abort(self) -> None:
        """Keep the old ones."""
        self._next = None

    async def reopen_done(self) -> None:
        """Where the image became writable: say in it that its bitmaps are in use."""
        if not self.node.writable:
            return
        try:
            await self._make_ready()
            await self.stored_bitmaps.mark_in_use()
        except BlockyardError as error:
            _log.warning("%s: Failed to make dirty bitmaps writable: %s", self.node.name, error)
            return
        for bitmap in bitmaps.persistent(self.node):
            bitmap.read_only = False

    # -- information

    def strong_options(self) -> dict[str, Any]:
        """The key alone: nothing else decides which data the node shows."""
        encrypt = self.options.encrypt
        if encrypt is None or encrypt.u.key_secret is None:
            return {}
        return {"encrypt.key-secret": encrypt.u.key_secret}

    def can_compress(self) -> bool:
        """Into its own clusters; an external data file has none of those."""
        return True

    async def image_info(self) -> dict[str, Any]:
        """What is told of the image."""
        return await image_info(self)

    def child_permissions(self, child: Child, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """As for any format; while key slots change, the file is nobody else's."""
        wanted, offered = super().child_permissions(child, perm, shared)
        if self.amending and child.name == "file":
            wanted |= Perm.WRITE
            offered &= ~(Perm.CONSISTENT_READ | Perm.WRITE)
        return wanted, offered
