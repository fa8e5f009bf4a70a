# SPDX-License-Identifier: Apache-2.0
"""Requests from Python: reads and writes through a root of the graph.

:class:`Access` is what library handles, jobs and drivers in Python use.  Each
call is one crossing into C; the rest of the request's way is native.

A call that is cancelled returns at once, and the request goes on: the buffer
stays pinned until it has ended, so memory is never reused under it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from blockyard.errors import InvalidOption, from_errno
from blockyard.request import BlockStatus, Op, Preallocation, RequestFlags, StatusFlags

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blockyard.loop import Control, Event

__all__ = ["Access"]

_NO_FLAGS = RequestFlags(0)
_MAX_PIECES = 1024


class _Pieces(NamedTuple):
    """A scatter list, and what keeps its memory in place."""

    native: Any
    pinned: list[Any]


class Access:
    """Requests into the graph through one native root.

    ``inner`` requests are not parked by drain; they are for drivers and jobs that
    must go on inside a drained section.  Every method raises
    :class:`~blockyard.errors.ImageIOError` with the request's errno when it fails.
    """

    def __init__(
        self,
        control: Control,
        root: Any,
        *,
        inner: bool = False,
        node_at: Callable[[int], object | None] = lambda address: None,
    ) -> None:
        """``root``: the ``struct by_root *``.  ``node_at`` finds a node by native address."""
        self._control = control
        self._root = root
        self._inner = inner
        self._node_at = node_at

    # -- asynchronous

    async def read(self, offset: int, length: int) -> bytes:
        """The ``length`` bytes at ``offset``."""
        buffer = self._control.ffi.new("char[]", _size(length, "length"))
        await self._run(Op.READ, offset, length, buffer)
        return bytes(self._control.ffi.buffer(buffer, length))

    async def read_into(self, offset: int, buffer: Any) -> int:
        """Fill a writable buffer from ``offset`` on; answers its length in bytes.

        The buffer cannot be resized before the request has ended, cancelled or not.
        """
        pinned = self.pin(buffer, writable=True)
        await self._run(Op.READ, offset, len(pinned), pinned)
        return len(pinned)

    async def write(
        self, offset: int, data: Any, *, fua: bool = False, compressed: bool = False
    ) -> int:
        """Write a buffer at ``offset``; answers its length.  Leave it alone until then."""
        pinned = self.pin(data, writable=False)
        flags = RequestFlags.FUA if fua else _NO_FLAGS
        flags |= RequestFlags.COMPRESSED if compressed else _NO_FLAGS
        await self._run(Op.WRITE, offset, len(pinned), pinned, flags)
        return len(pinned)

    async def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        """:meth:`read_into` for several buffers, filled one after the other by one request."""
        pieces, length = self._pieces(buffers, writable=True)
        await self._run(Op.READ, offset, length, pieces=pieces)
        return length

    async def writev(self, offset: int, buffers: Sequence[Any], *, fua: bool = False) -> int:
        """:meth:`write` of several buffers, one after the other, in one request."""
        pieces, length = self._pieces(buffers, writable=False)
        flags = RequestFlags.FUA if fua else _NO_FLAGS
        await self._run(Op.WRITE, offset, length, flags=flags, pieces=pieces)
        return length

    async def flush(self) -> None:
        """Bring everything written before to stable storage."""
        await self._run(Op.FLUSH, 0, 0)

    async def discard(self, offset: int, length: int) -> None:
        """Tell that the range's content does not matter any more."""
        await self._run(Op.DISCARD, offset, length)

    async def write_zeroes(
        self,
        offset: int,
        length: int,
        *,
        may_unmap: bool = False,
        no_fallback: bool = False,
        fua: bool = False,
    ) -> None:
        """Make the range read as zeroes."""
        await self._run(
            Op.WRITE_ZEROES, offset, length, flags=_zero_flags(may_unmap, no_fallback, fua)
        )

    async def block_status(self, offset: int, length: int, *, layers: int = 0) -> BlockStatus:
        """What holds for the first bytes of the range.

        ``layers``: how many of a backing chain are asked; 0 is all, 1 the node alone.
        """
        status = self._control.ffi.new("struct by_status *")
        await self._run(Op.BLOCK_STATUS, offset, length, status=status, layers=layers)
        return self._status(status)

    async def truncate(
        self, length: int, *, prealloc: Preallocation = Preallocation.OFF, exact: bool = True
    ) -> None:
        """Change the length; serialised against overlapping writes."""
        await self._run(Op.TRUNCATE, length, 0, prealloc=prealloc, exact=exact)

    async def prefetch(self, offset: int, length: int) -> None:
        """Hint that the range will be read soon."""
        await self._run(Op.PREFETCH, offset, length)

    async def copy_range(
        self, offset: int, length: int, target: Access, target_offset: int
    ) -> None:
        """Copy a range into another root's node without passing through memory."""
        await self._run(
            Op.COPY_RANGE, offset, length, target=target._root, target_offset=target_offset
        )

    # -- blocking, for threads without an event loop

    def read_now(self, offset: int, length: int) -> bytes:
        """:meth:`read`, waiting in this thread, which must not be the control thread."""
        buffer = self._control.ffi.new("char[]", _size(length, "length"))
        self._wait(Op.READ, offset, length, buffer)
        return bytes(self._control.ffi.buffer(buffer, length))

    def read_into_now(self, offset: int, buffer: Any) -> int:
        """:meth:`read_into`, waiting in this thread."""
        pinned = self.pin(buffer, writable=True)
        self._wait(Op.READ, offset, len(pinned), pinned)
        return len(pinned)

    def write_now(self, offset: int, data: Any, *, fua: bool = False) -> int:
        """:meth:`write`, waiting in this thread."""
        pinned = self.pin(data, writable=False)
        flags = RequestFlags.FUA if fua else _NO_FLAGS
        self._wait(Op.WRITE, offset, len(pinned), pinned, flags)
        return len(pinned)

    def wait_now(self, op: Op, offset: int = 0, length: int = 0, **fields: Any) -> None:
        """Any request without a payload, waiting in this thread."""
        self._wait(op, offset, length, **fields)

    def block_status_now(self, offset: int, length: int, *, layers: int = 0) -> BlockStatus:
        """:meth:`block_status`, waiting in this thread."""
        status = self._control.ffi.new("struct by_status *")
        self._wait(Op.BLOCK_STATUS, offset, length, status=status, layers=layers)
        return self._status(status)

    # -- the crossing

    async def _run(self, op: Op, offset: int, length: int, *rest: Any, **fields: Any) -> None:
        done = anyio.Event()
        answer: list[int] = []

        def ended(result: int) -> None:
            answer.append(result)
            done.set()

        self.start(ended, op, offset, length, *rest, **fields)
        await done.wait()
        _check(answer[0])

    def start(
        self,
        ended: Callable[[int], None],
        op: Op,
        offset: int,
        length: int,
        *rest: Any,
        **fields: Any,
    ) -> None:
        """Send a request and do not wait for it.

        ``ended`` is called on the control thread with 0 or a negative errno.  A payload
        is what :meth:`pin` answered; it is kept until then.

        :raises ImageIOError: ENOMEM; ``ended`` is not called then.
        """
        status = fields.pop("status", self._control.ffi.NULL)
        request = self._request(op, offset, length, *rest, **fields)

        def event(event: Event) -> None:
            self._control.release(request.tag)
            keep.clear()
            ended(event.result)

        # The handler keeps the memory alive until the event, awaited or not.
        keep = [request, status, rest, fields]
        request.tag = self._control.tag(event)
        result = self._control.lib.by_access_start(self._root, self._inner, request, status)
        if result < 0:
            self._control.release(request.tag)
            raise from_errno(result)

    def _wait(self, op: Op, offset: int, length: int, *rest: Any, **fields: Any) -> None:
        status = fields.pop("status", self._control.ffi.NULL)
        request = self._request(op, offset, length, *rest, **fields)
        _check(self._control.lib.by_access_wait(self._root, self._inner, request, status))

    def _request(
        self,
        op: Op,
        offset: int,
        length: int,
        buffer: Any = None,
        flags: int = 0,
        *,
        prealloc: int = 0,
        exact: bool = False,
        target: Any = None,
        target_offset: int = 0,
        pieces: _Pieces | None = None,
        layers: int = 0,
    ) -> Any:
        null = self._control.ffi.NULL
        fields = {
            "op": int(op),
            "flags": int(flags),
            "offset": _size(offset, "offset"),
            "bytes": _size(length, "length"),
            "buffer": null if buffer is None else buffer,
            "prealloc": int(prealloc),
            "exact": int(exact),
            "target": null if target is None else target,
            "target_offset": _size(target_offset, "offset"),
            "pieces": null if pieces is None else pieces.native,
            "npieces": 0 if pieces is None else len(pieces.native),
            "layers": layers,
        }
        return self._control.ffi.new("struct by_access *", fields)

    def pin(self, buffer: Any, *, writable: bool) -> Any:
        """A buffer's memory as requests take it; it cannot be resized while that is kept.

        :raises InvalidOption: if it is not contiguous.
        """
        view = memoryview(buffer)
        if not view.contiguous:
            raise InvalidOption("The buffer is not contiguous")
        return self._control.ffi.from_buffer("char[]", view, require_writable=writable)

    def _pieces(self, buffers: Sequence[Any], *, writable: bool) -> tuple[_Pieces, int]:
        if not 1 <= len(buffers) <= _MAX_PIECES:
            raise InvalidOption(f"A request takes 1 to {_MAX_PIECES} buffers")
        pinned = [self.pin(buffer, writable=writable) for buffer in buffers]
        native = self._control.ffi.new("struct by_extent[]", [(p, len(p)) for p in pinned])
        return _Pieces(native, pinned), sum(len(p) for p in pinned)

    def _status(self, status: Any) -> BlockStatus:
        return BlockStatus(
            flags=StatusFlags(status.flags),
            bytes=status.bytes,
            host_offset=status.host_offset,
            owner=self._node_at(status.owner),
            depth=status.depth,
        )


def _zero_flags(may_unmap: bool, no_fallback: bool, fua: bool) -> RequestFlags:
    flags = RequestFlags.MAY_UNMAP if may_unmap else _NO_FLAGS
    flags |= RequestFlags.NO_FALLBACK if no_fallback else _NO_FLAGS
    return flags | (RequestFlags.FUA if fua else _NO_FLAGS)


def _size(value: int, what: str) -> int:
    if not 0 <= value < 1 << 63:
        raise InvalidOption(f"The {what} {value} is out of range")
    return value


def _check(result: int) -> None:
    if result < 0:
        raise from_errno(result)
