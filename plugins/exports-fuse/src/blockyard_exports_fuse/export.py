# SPDX-License-Identifier: Apache-2.0
"""The export type ``fuse``: a node as a regular file at a mount point."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import anyio.to_thread

from blockyard.errors import BlockyardError, Busy, NotFound
from blockyard.export import Export, ExportType
from blockyard.imageinfo import allocated_size
from blockyard.permission import ALL, Perm
from blockyard_exports_fuse.mount import Mount, check_mountpoint, mount
from blockyard_exports_fuse.native import API, ffi, lib
from blockyard_exports_fuse.queue import Queue, QueueStats
from blockyard_exports_fuse.schema import FUSE, FuseExportAllowOther

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockyard.loop import Event, Loop
    from blockyard.root import Root
    from blockyard.yard import Yard

__all__ = ["FuseExport"]

_log = logging.getLogger(__name__)

#: Of each queue: requests in flight, and bytes of memory held for them.
_MAX_REQUESTS = 256
_MAX_HELD = 64 << 20
#: st_blksize at least; programs take it for the size of their buffers.
_BLOCK_SIZE = 4096
_ALLOW_OTHER = {
    None: None,
    FuseExportAllowOther.AUTO: None,
    FuseExportAllowOther.ON: True,
    FuseExportAllowOther.OFF: False,
}


class FuseExport(Export):
    """One export: a mount, and a queue of requests on each of its loops."""

    type: ClassVar[ExportType] = FUSE

    def __init__(
        self, yard: Yard, export_id: str, options: Any, root: Root, loops: Sequence[Loop]
    ) -> None:
        super().__init__(yard, export_id, options, root, loops)
        #: Where it is, as it was named and without symbolic links.
        self.mountpoint: str = options.u.mountpoint
        self.path = ""
        self.growable = bool(options.u.growable)
        self._mount: Mount
        self._native: Any = ffi.NULL
        self._tag = 0
        self._allocated = 0
        self._queues: list[Queue] = []

    # -- life

    async def start(self) -> None:
        """Mount and serve.

        :raises BlockyardError: in QEMU's words.
        """
        if self.writable or self.growable:
            await self.yard.graph.set_root_permissions(self.root, self.root.perm | Perm.RESIZE, ALL)
        self._refuse_double(self.mountpoint)
        self.path = await anyio.to_thread.run_sync(check_mountpoint, self.mountpoint)
        self._refuse_double(self.path)
        self._allocated = await self._ask_allocated()
        self._mount = await anyio.to_thread.run_sync(self._do_mount)
        try:
            self._create()
            for loop in self.loops:
                self._add_queue(loop)
            await anyio.to_thread.run_sync(self._mount.settle)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.shutdown()
            raise

    def _refuse_double(self, name: str) -> None:
        for other in self.yard.exports:
            if isinstance(other, FuseExport) and name in (other.mountpoint, other.path):
                raise Busy(f"There already is a FUSE export on '{self.mountpoint}'")

    def _do_mount(self) -> Mount:
        allow = _ALLOW_OTHER[self.options.u.allow_other]
        return mount(self.path, read_only=not self.writable, allow_other=allow)

    def _create(self) -> None:
        params = ffi.new("struct by_fuse_params *")
        params.writable = self.writable
        params.growable = self.growable
        params.allow_other = self._mount.allow_other
        params.uid = os.getuid()
        params.gid = os.getgid()
        params.block_size = max(_BLOCK_SIZE, self.node.limits.request_alignment)
        params.allocated = self._allocated
        params.max_requests = _MAX_REQUESTS
        params.max_held = _MAX_HELD
        root = int(self.yard.control.ffi.cast("uintptr_t", self.root.native))
        self._tag = self.yard.control.tag(self._changed)
        self._native = lib.by_fuse_create(API, root, params, self._tag)
        if self._native == ffi.NULL:
            raise MemoryError

    async def shutdown(self) -> None:
        """Unmount, answer what is in flight, let go of the mount."""
        await anyio.to_thread.run_sync(self._mount.unmount)
        leaving = list(self._queues)
        for queue in leaving:
            queue.stop()
        for queue in leaving:
            await queue.wait()
        # Whoever has the file open still learns here that there is nothing behind it.
        os.close(self._mount.fd)
        self.yard.control.release(self._tag)
        if self._native != ffi.NULL:
            lib.by_fuse_destroy(self._native)
            self._native = ffi.NULL

    async def home_changed(self, home: Loop) -> None:
        """The requests to come are served where the node is; those in flight as before."""
        if isinstance(self.options.iothread, list) or self.shutting_down:
            return
        leaving = list(self._queues)
        try:
            self._add_queue(home)
        except BlockyardError as error:
            _log.warning("export '%s' stays in its iothread: %s", self.id, error)
            return
        for queue in leaving:
            queue.stop()
        for loop in self.loops:
            loop.users -= 1
        home.users += 1
        self.loops = (home,)

    # -- queues

    def _add_queue(self, loop: Loop) -> None:
        queue = Queue(self.yard, loop, self._ended)
        queue.start(self._native, self._mount.fd)
        self._queues.append(queue)

    def _ended(self, queue: Queue, result: int) -> None:
        self._queues.remove(queue)
        if result < 0 and not self.shutting_down:
            self.yard.spawn(self._lost)

    async def _lost(self) -> None:
        """Somebody has unmounted the file: there is nothing to export any more."""
        try:
            await self.yard.exports.delete(self.id, hard=True)
        except (NotFound, Busy):
            return

    def statistics(self) -> list[QueueStats]:
        """The counters of every queue, the oldest first."""
        found = (queue.stats() for queue in self._queues)
        return [stats for stats in found if stats is not None]

    # -- what the node occupies

    async def _ask_allocated(self) -> int:
        size = await allocated_size(self.node)
        return self.node.length if size is None else size

    def _changed(self, event: Event) -> None:
        """BY_FUSE_CHANGED, the only event."""
        self.yard.spawn(self._refresh)

    async def _refresh(self) -> None:
        try:
            self._allocated = await self._ask_allocated()
        except (BlockyardError, OSError) as error:
            _log.debug("export '%s': %s", self.id, error)
        if self._native != ffi.NULL:
            lib.by_fuse_set_allocated(self._native, self._allocated)
