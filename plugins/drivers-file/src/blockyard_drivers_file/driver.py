# SPDX-License-Identifier: Apache-2.0
"""The control half of ``file``, ``host_device`` and ``host_cdrom``.

A node keeps one descriptor number for its whole life.  When its file has to be
opened in another way (a reopen, or a first writer under auto-read-only), the new
open file takes the old one's place behind the same number, in one step: requests
under way finish on the old one, later ones use the new one.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

import anyio

from blockyard.errors import BlockyardError, InvalidOption, Unsupported, from_errno
from blockyard.fdset import FD_SETS
from blockyard.node import Driver, Opened
from blockyard.permission import ALL, NONE, Perm
from blockyard.request import Limits
from blockyard_drivers_file.create import create_file, remove_file
from blockyard_drivers_file.locks import FileLocks
from blockyard_drivers_file.native import ffi, lib
from blockyard_drivers_file.opening import Access, in_thread, look, open_checked

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FileDriver", "HostCdromDriver", "HostDeviceDriver"]

_MAX_IOV = 1024
_MAX_BATCH = (1 << 32) - 1
_WRITERS = Perm.WRITE | Perm.WRITE_UNCHANGED | Perm.RESIZE
_AIO = {
    None: lib.BY_FILE_AUTO,
    "threads": lib.BY_FILE_THREADS,
    "native": lib.BY_FILE_RING,
    "io_uring": lib.BY_FILE_RING,
}


class FileDriver(Driver):
    """Regular files."""

    kind = lib.BY_FILE_REGULAR

    def __init__(self, options: Any, node: Any) -> None:
        super().__init__(options, node)
        self.locks = FileLocks(options.filename, options.locking != "off")
        self._fd = -1
        self._state = ffi.NULL
        self._access = Access(writable=False, direct=False)
        self._limits = Limits()
        #: What takes the descriptor's place at commit: the open file and its access.
        self._next: tuple[int, Access] | None = None
        self._perm, self._shared = NONE, ALL
        self._checked = NONE, ALL

    # -- life

    async def open(self) -> Opened:
        """Open the file and find out what O_DIRECT wants.

        :raises BlockyardError: if it is not there, or not what the driver serves.
        """
        self._check_options()
        return await in_thread(self._open)

    def _check_options(self) -> None:
        if not self.options.filename:
            raise InvalidOption(f"The '{self.node.type.name}' block driver requires a file name")
        if self.options.pr_manager is not None:
            raise InvalidOption(
                f"No persistent reservation manager with id '{self.options.pr_manager}'"
            )

    def _open(self) -> Opened:
        self._access = self._wanted_access(NONE)
        fd = self._open_file(self._access)
        try:
            length = look(fd).node_length()
            self._limits = self._find_limits(fd, self._access)
            self._state = lib.by_file_create(self.settings(fd))
            if self._state == ffi.NULL:
                raise MemoryError
        except BaseException:
            FD_SETS.close(fd)
            raise
        self._fd = fd
        return Opened(
            ops=lib.by_file_ops(self.kind),
            state=int(ffi.cast("uintptr_t", self._state)),
            length=length,
            limits=self._limits,
        )

    async def close(self) -> None:
        """Free the state and close the file, which gives the locks back."""
        with anyio.CancelScope(shield=True):
            await in_thread(self._close)

    def _close(self) -> None:
        lib.by_file_free(self._state)
        self._state = ffi.NULL
        self._drop_next()
        if self._fd >= 0:
            self.locks.forget(self._fd, self.locks.held)
            FD_SETS.close(self._fd)
            self._fd = -1

    def exact_filename(self) -> str | None:
        """The file's name."""
        return str(self.options.filename)

    def _find_limits(self, fd: int, access: Access) -> Limits:
        if not access.direct:
            return Limits(max_iov=_MAX_IOV)
        request, memory = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        if (result := lib.by_file_probe(fd, request, memory)) < 0:
            error = InvalidOption("Could not find working O_DIRECT alignment")
            error.add_note(f"Try cache.direct=off ({os.strerror(-result)})")
            raise error
        return Limits(request_alignment=request[0], memory_alignment=memory[0], max_iov=_MAX_IOV)

    def settings(self, fd: int) -> Any:
        """What the request half goes by: ``struct by_file_settings``."""
        return ffi.new(
            "struct by_file_settings *",
            {
                "fd": fd,
                "aio": _AIO[self.options.aio],
                "regular": self.kind == lib.BY_FILE_REGULAR,
                "direct": self._access.direct,
                "alignment": self._limits.request_alignment,
                "max_batch": self._max_batch(),
            },
        )

    def _max_batch(self) -> int:
        # QEMU takes any number; one that no queue ever reaches is as good as none.
        batch = self.options.aio_max_batch or 0
        return batch if 0 < batch <= _MAX_BATCH else 0

    # -- how the file has to be open

    def _wanted_access(self, perm: Perm) -> Access:
        node = self.node
        # With auto-read-only a file is open for writing only while somebody writes.
        writable = bool(perm & _WRITERS) if node.auto_read_only else True
        return Access(writable=writable and not node.read_only, direct=node.cache_direct)

    def _open_file(self, access: Access) -> int:
        return open_checked(self.node, self.options.filename, access, self.options.aio)

    def _prepare_file(self, perm: Perm) -> None:
        access = self._wanted_access(perm)
        if self._next and self._next[1] != access:
            self._drop_next()
        if self._next or access == self._access:
            return
        fd = self._open_file(access)
        try:
            limits = self._find_limits(fd, access)
            if access.direct == self._access.direct and limits != self._limits:
                raise BlockyardError("The file's alignment has changed")
            self._same_file(fd)
        except BaseException:
            FD_SETS.close(fd)
            raise
        self._next = fd, access

    def _same_file(self, fd: int) -> None:
        """Requests and locks of the node must not move to a file that took its name."""
        if not os.path.samestat(os.fstat(fd), os.fstat(self._fd)):
            name = self.options.filename
            raise BlockyardError(f"Could not reopen '{name}': it is another file now")

    def _drop_next(self) -> None:
        if self._next:
            FD_SETS.close(self._next[0])
            self._next = None

    def _switch(self) -> None:
        """Let the prepared file take the descriptor's place, locks included."""
        if not self._next:
            return
        fd, self._access = self._next
        self._next = None
        self.locks.forget(self._fd, self.locks.held)
        old = None
        with contextlib.suppress(OSError):
            old = os.dup(self._fd)
        FD_SETS.replace(fd, self._fd)
        if old is not None:
            # Closing may wait for a server, and this must not.
            threading.Thread(target=os.close, args=(old,), daemon=True).start()

    # -- permissions

    async def check_permissions(self, perm: Perm, shared: Perm) -> None:
        """Lock what old and new permissions need; open for writing if that is new.

        :raises PermissionConflict: if another process objects.
        """
        await in_thread(self._check_permissions, perm, shared)

    def _check_permissions(self, perm: Perm, shared: Perm) -> None:
        if not self.node.active:
            perm, shared = NONE, ALL
        self._checked = perm, shared
        self._prepare_file(perm)
        try:
            self.locks.prepare(self._fd, perm, shared)
            if self._next:
                self.locks.copy(self._next[0])
        except BaseException:
            self._drop_next()
            self.locks.abort(self._fd)
            raise

    async def set_permissions(self, perm: Perm, shared: Perm) -> None:
        """Use the file that was prepared, and let go of locks that are not needed."""
        self._perm, self._shared = self._checked
        await in_thread(self._set_permissions)

    def _set_permissions(self) -> None:
        self._switch()
        self.locks.commit(self._fd, self._perm, self._shared)

    async def abort_permissions(self) -> None:
        """Forget the file that was prepared, and the locks."""
        await in_thread(self._abort_permissions)

    def _abort_permissions(self) -> None:
        self._drop_next()
        self.locks.abort(self._fd)

    # -- reopen

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        """Open the file once more where the flags ask for another way.

        :raises BlockyardError: if that is not possible.
        """
        if options.aio == "native" and not self.node.cache_direct:
            raise InvalidOption(
                "aio=native was specified, but it requires cache.direct=on, "
                "which was not specified."
            )
        # It has no locks yet: they come with the permissions, which are asked for next.  Locks
        # of its own would stand in the way of a node that becomes writable.
        await in_thread(self._prepare_file, self._perm)

    def reopen_commit(self) -> None:
        """Use it; a failed flush is forgotten from here on."""
        self._switch()
        with contextlib.suppress(BlockyardError):
            self._limits = self._find_limits(self._fd, self._access)
        lib.by_file_change(self._state, self.settings(self._fd))
        self.node.graph.carrier.set_limits(self.node, self._limits)
        self.node.limits = self._limits

    async def reopen_abort(self) -> None:
        """Forget it."""
        await in_thread(self._drop_next)

    # -- activity

    async def set_active(self, active: bool) -> None:
        """Before the image is used again, forget pages that its last user has changed.

        :raises BlockyardError: if that fails, or pages are left and it was asked to check.
        """
        if active and self.options.drop_cache is not False and not self._access.direct:
            await in_thread(self._drop_cache)

    def _drop_cache(self) -> None:
        if (result := lib.by_file_drop_cache(self._fd)) < 0:
            raise from_errno(result, "fadvise failed")
        if self.options.x_check_cache_dropped:
            cached = lib.by_file_is_cached(self._fd, look(self._fd).length)
            if cached < 0:
                raise from_errno(cached, "mincore failed")
            if cached:
                raise BlockyardError("page cache still in use!")

    # -- information

    async def image_info(self) -> dict[str, Any]:
        """QAPI ImageInfoSpecificFile."""
        return {"format-specific": {"type": "file", "data": await in_thread(self._extents)}}

    def _extents(self) -> dict[str, int]:
        hint = ffi.new("uint32_t *")
        lib.by_file_get_extent_hint(self._fd, hint)
        return {"extent-size-hint": hint[0]} if hint[0] else {}

    async def allocated_size(self) -> int | None:
        """The bytes that the file has on its file system."""
        return (await in_thread(look, self._fd)).allocated

    def statistics(self) -> dict[str, Any] | None:
        """QAPI BlockStatsSpecificFile."""
        stats = ffi.new("struct by_file_stats *")
        lib.by_file_get_stats(self._state, stats)
        return {
            "discard-nb-ok": stats.discards_ok,
            "discard-nb-failed": stats.discards_failed,
            "discard-bytes-ok": stats.discarded_bytes,
        }

    def truncate_error(self, length: int, prealloc: str, error: BlockyardError) -> BlockyardError:
        """What to tell the user when TRUNCATE failed with ``error``, in QEMU's words."""
        from blockyard_drivers_file.create import resize_error

        number = getattr(error, "errno", None)
        step = lib.by_file_truncate_step(self._state)
        return resize_error(step, number, prealloc) if number and step else error

    # -- images

    @classmethod
    async def create(cls, options: Any, yard: Any) -> None:
        """Make a file, or empty and resize one that exists.

        :raises BlockyardError: as QEMU does; a file that could not be finished stays.
        """
        await in_thread(create_file, options)

    @classmethod
    async def remove(cls, options: Mapping[str, Any]) -> None:
        """Unlink the file; a device's node in the file system is not an image."""
        if cls.kind == lib.BY_FILE_REGULAR:
            await in_thread(remove_file, options["filename"])


class HostDeviceDriver(FileDriver):
    """Block and character devices."""

    kind = lib.BY_FILE_DEVICE

    async def check_resize(self, length: int) -> None:
        """A device cannot grow.

        :raises Unsupported: if it would have to.
        """
        if length > self.node.length:
            raise Unsupported("Cannot grow device files")

    @classmethod
    async def create(cls, options: Any, yard: Any) -> None:
        """Devices are not created.

        :raises Unsupported: always.
        """
        await Driver.create.__func__(cls, options, yard)  # type: ignore[attr-defined]


class HostCdromDriver(HostDeviceDriver):
    """Optical drives.  The disc may change while the node is open."""

    kind = lib.BY_FILE_CDROM

    async def image_info(self) -> dict[str, Any]:
        """Nothing special.  A disc may have been changed since: its length is taken over."""
        length = (await in_thread(look, self._fd)).node_length()
        if length != self.node.length:
            self.node.graph.carrier.set_length(self.node, length)
        return {}

    def statistics(self) -> dict[str, Any] | None:
        """Nothing special."""
        return None

    async def disc_present(self) -> bool:
        """Whether the drive has a disc that can be read."""
        return bool(await in_thread(lib.by_file_disc_present, self._fd))

    async def move_tray(self, *, out: bool) -> None:
        """Open (``out``) or close the tray.

        :raises ImageIOError: if the drive refuses.
        """
        if (result := await in_thread(lib.by_file_tray, self._fd, out)) < 0:
            raise from_errno(result, "Could not move the tray")

    async def lock_door(self, *, locked: bool) -> None:
        """Lock or unlock the eject button.

        :raises ImageIOError: if the drive refuses.
        """
        if (result := await in_thread(lib.by_file_door, self._fd, locked)) < 0:
            raise from_errno(result, "Could not lock the drive")
