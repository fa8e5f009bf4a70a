# SPDX-License-Identifier: Apache-2.0
"""A queue of the kernel's requests, carried by the native half on one loop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from blockyard.errors import from_errno
from blockyard_exports_fuse.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockyard.loop import Event, Loop
    from blockyard.yard import Yard

__all__ = ["Queue", "QueueStats"]


@attrs.frozen(eq=False, repr=False, kw_only=True)
class QueueStats:
    """What one queue did so far."""

    requests: int
    #: Answered with an error; and those whose answer the kernel did not want any more.
    failed: int
    unanswered: int
    bytes_read: int
    bytes_written: int
    #: System calls that asked for a request.
    receives: int
    in_flight: int
    #: Bytes of memory for requests in flight.
    held: int


class Queue:
    """One queue; ended when :meth:`wait` returns."""

    def __init__(self, yard: Yard, loop: Loop, on_ended: Callable[[Queue, int], None]) -> None:
        """``on_ended`` gets 0, or a negative errno, once, if :meth:`start` succeeded."""
        self.loop = loop
        self._yard = yard
        self._on_ended = on_ended
        self._ended = anyio.Event()
        self._native: Any = ffi.NULL
        self._tag = 0

    def start(self, export: Any, fd: int) -> None:
        """Serve the mount behind ``fd``, which stays the caller's.

        :raises ImageIOError: without memory or descriptors.
        """
        core = self._yard.control.ffi
        own = lib.by_fuse_clone(fd)
        if own < 0:
            raise from_errno(own, "FUSE queue")
        error = ffi.new("int *")
        self._tag = self._yard.control.tag(self._handle)
        self._native = lib.by_fuse_start(
            export, int(core.cast("uintptr_t", self.loop.native)), own, self._tag, error
        )
        if self._native == ffi.NULL:
            self._yard.control.release(self._tag)
            os.close(own)
            raise from_errno(error[0], "FUSE queue")
        self.loop.users += 1

    def _handle(self, event: Event) -> None:
        """BY_FUSE_ENDED, the only event."""
        self._yard.control.release(self._tag)
        lib.by_fuse_free(self._native)
        self._native = ffi.NULL
        self.loop.users -= 1
        self._ended.set()
        self._on_ended(self, event.result)

    def stop(self) -> None:
        """Let it end: it reads no more and answers what is in flight."""
        if self._native != ffi.NULL:
            lib.by_fuse_stop(self._native)

    async def wait(self) -> None:
        """Wait until it has ended."""
        await self._ended.wait()

    def stats(self) -> QueueStats | None:
        """Its counters; None once it has ended."""
        if self._native == ffi.NULL:
            return None
        raw = ffi.new("struct by_fuse_stats *")
        lib.by_fuse_get_stats(self._native, raw)
        names = (field.name for field in attrs.fields(QueueStats))
        return QueueStats(**{name: getattr(raw, name) for name in names})
