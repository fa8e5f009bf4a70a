# SPDX-License-Identifier: Apache-2.0
"""Streams over sockets and over other descriptors."""

from __future__ import annotations

import array
import os
import select
import socket
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockyard.chardev.logfile import LogFile

__all__ = ["DescriptorStream", "Sink", "SocketStream"]

_CHUNK = 16 << 10
#: Descriptors taken from one message; the kernel passes no more than 253.
_FDS = 16


class SocketStream:
    """A connected stream socket, which must be non-blocking; descriptors come through it."""

    def __init__(
        self,
        sock: socket.socket,
        log: LogFile | None = None,
        closed: Callable[[], None] | None = None,
    ) -> None:
        """``closed`` is called when the stream is."""
        self.socket = sock
        self._log = log
        self._closed = closed
        self._unix = sock.family == socket.AF_UNIX

    async def receive(self) -> tuple[bytes, list[int]]:
        """Some bytes, and descriptors that came with them; ``b""`` at the end."""
        while True:
            try:
                return self._receive()
            except BlockingIOError:
                await _readable(self.socket)

    async def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        if self._log:
            self._log.write(data)
        view = memoryview(data)
        while view:
            try:
                view = view[self.socket.send(view, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                await _writable(self.socket)

    def hung_up(self) -> bool:
        """Whether the other end is closed in both directions."""
        poll = select.poll()
        poll.register(self.socket.fileno(), 0)
        return any(mask & (select.POLLHUP | select.POLLERR) for _, mask in poll.poll(0))

    async def aclose(self) -> None:
        """Close it."""
        if self.socket.fileno() >= 0:
            anyio.notify_closing(self.socket)
            self.socket.close()
            if self._closed:
                self._closed()

    def _receive(self) -> tuple[bytes, list[int]]:
        if not self._unix:
            return self.socket.recv(_CHUNK), []
        room = socket.CMSG_SPACE(_FDS * array.array("i").itemsize)
        data, ancillary, _, _ = self.socket.recvmsg(_CHUNK, room, socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        return data, list(fds)


class DescriptorStream:
    """A pair of descriptors, one to read and one to write; either may be absent.

    What was non-blocking before and what was not is the caller's to restore.
    """

    def __init__(
        self,
        reader: int | None,
        writer: int | None,
        log: LogFile | None = None,
        closed: Callable[[], None] | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._log = log
        self._closed = closed

    async def receive(self) -> tuple[bytes, list[int]]:
        """Some bytes; waits for ever where there is nothing to read from."""
        if self._reader is None:
            await anyio.sleep_forever()
        while self._reader is not None:
            try:
                return os.read(self._reader, _CHUNK), []
            except BlockingIOError:
                await _readable(self._reader)
        return b"", []

    async def send(self, data: bytes) -> None:
        """Write all of ``data``; to nowhere if there is nothing to write to."""
        if self._log:
            self._log.write(data)
        view = memoryview(data)
        while view and self._writer is not None:
            try:
                view = view[os.write(self._writer, view) :]
            except BlockingIOError:
                await _writable(self._writer)

    def hung_up(self) -> bool:
        """The end of input is all that can be known."""
        return False

    async def aclose(self) -> None:
        """Stop; the descriptors stay open, they are the chardev's."""
        for fd in {self._reader, self._writer} - {None}:
            anyio.notify_closing(fd)  # type: ignore[arg-type]
        self._reader = self._writer = None
        if self._closed:
            self._closed()


class Sink:
    """A stream that nothing comes from and whose output goes to a function."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    async def receive(self) -> tuple[bytes, list[int]]:
        """Wait for ever."""
        await anyio.sleep_forever()
        return b"", []

    async def send(self, data: bytes) -> None:
        """Hand ``data`` over."""
        self._write(data)

    def hung_up(self) -> bool:
        """There is nobody who could."""
        return False

    async def aclose(self) -> None:
        """Nothing to close."""


async def _readable(what: socket.socket | int) -> None:
    try:
        await anyio.wait_readable(what)
    except anyio.ClosedResourceError as error:
        raise ConnectionAbortedError from error


async def _writable(what: socket.socket | int) -> None:
    try:
        await anyio.wait_writable(what)
    except anyio.ClosedResourceError as error:
        raise ConnectionAbortedError from error
