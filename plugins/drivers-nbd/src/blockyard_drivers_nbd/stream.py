# SPDX-License-Identifier: Apache-2.0
"""A server's socket during the handshake: exact reads, bounded, never more than asked for.

Nothing is read ahead, so that what follows the handshake is still in the socket when
the native half takes it over.
"""

from __future__ import annotations

import socket

import anyio
import anyio.lowlevel

from blockyard.errors import BlockyardError, from_os_error

__all__ = ["ServerStream"]

_PIECE = 64 * 1024


class ServerStream:
    """Reads and writes on a connected non-blocking socket."""

    def __init__(self, sock: socket.socket, limit: int) -> None:
        """``limit``: bytes that the server may send in all."""
        self._socket = sock
        self._left = limit

    async def read(self, count: int, what: str) -> bytes:
        """Exactly ``count`` bytes, which errors call ``what``.

        :raises BlockyardError: if the connection ends before, or the limit is met.
        """
        data = bytearray()
        while len(data) < count:
            data += await self._receive(min(count - len(data), _PIECE), what)
        return bytes(data)

    async def skip(self, count: int, what: str) -> None:
        """Read ``count`` bytes and forget them; raises as :meth:`read`."""
        while count:
            count -= len(await self._receive(min(count, _PIECE), what))

    async def _receive(self, count: int, what: str) -> bytes:
        if count > self._left:
            raise BlockyardError(f"Failed to read {what}: the server sends without an end")
        # Each receive lets others run, however fast the server sends.
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                data = self._socket.recv(count)
            except (BlockingIOError, InterruptedError):
                await anyio.wait_readable(self._socket)
                continue
            except OSError as error:
                raise from_os_error(error, f"Failed to read {what}") from error
            if not data:
                raise BlockyardError(
                    f"Failed to read {what}: Unexpected end-of-file before all data were read"
                )
            self._left -= len(data)
            return data

    async def write(self, data: bytes) -> None:
        """Send all of ``data``.

        :raises ImageIOError: if the server takes no more.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view, socket.MSG_NOSIGNAL) :]
            except (BlockingIOError, InterruptedError):
                await anyio.wait_writable(self._socket)
            except OSError as error:
                raise from_os_error(error, "Failed to send option request") from error
