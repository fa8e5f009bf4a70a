# SPDX-License-Identifier: Apache-2.0
"""A client's socket during the handshake: exact reads, bounded, never more than asked for.

Nothing is read ahead, so that what follows the handshake is still in the socket when
the native half takes it over.
"""

from __future__ import annotations

import socket

import anyio
import anyio.lowlevel

__all__ = ["ClientGoneError", "ClientStream", "ProtocolError"]

_PIECE = 64 * 1024


class ClientGoneError(Exception):
    """Raised when the client closed the connection, or the network did."""


class ProtocolError(Exception):
    """Raised when the client broke the protocol so that no reply is possible."""


class ClientStream:
    """Reads and writes on a connected socket, which is made non-blocking."""

    def __init__(self, sock: socket.socket, limit: int) -> None:
        """``limit``: bytes that the client may send in all."""
        sock.setblocking(False)
        self._socket = sock
        self._left = limit

    async def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes.

        :raises ClientGoneError: if the connection ends before.
        :raises ProtocolError: if the client has sent more than its limit.
        """
        data = bytearray()
        while len(data) < count:
            data += await self._receive(min(count - len(data), _PIECE))
        return bytes(data)

    async def skip(self, count: int) -> None:
        """Read ``count`` bytes and forget them; raises as :meth:`read`."""
        while count:
            count -= len(await self._receive(min(count, _PIECE)))

    async def _receive(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            raise ProtocolError("too many bytes before the transmission phase")
        # Each receive lets others run, however fast the client sends.
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                data = self._socket.recv(count)
            except (BlockingIOError, InterruptedError):
                await anyio.wait_readable(self._socket)
                continue
            except OSError as error:
                raise ClientGoneError from error
            if not data:
                raise ClientGoneError
            self._left += count - len(data)
            return data

    async def write(self, data: bytes) -> None:
        """Send all of ``data``.

        :raises ClientGoneError: if the client takes no more.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view, socket.MSG_NOSIGNAL) :]
            except (BlockingIOError, InterruptedError):
                await anyio.wait_writable(self._socket)
            except OSError as error:
                raise ClientGoneError from error

    def detach(self) -> int:
        """Give the descriptor away; the stream is of no use afterwards."""
        return self._socket.detach()

    def close(self) -> None:
        """Close the socket, unless it was given away."""
        self._socket.close()
