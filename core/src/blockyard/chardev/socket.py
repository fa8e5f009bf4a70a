# SPDX-License-Identifier: Apache-2.0
"""The chardev ``socket``: unix, inet, vsock or passed; server or client."""

from __future__ import annotations

import logging
import socket
import sys
from typing import TYPE_CHECKING, Any

import anyio

from blockyard.chardev.base import Chardev
from blockyard.chardev.kinds import SOCKET
from blockyard.chardev.streams import SocketStream
from blockyard.errors import BlockyardError, InvalidOption, Unsupported
from blockyard.sockets import absolute, connect, describe, listen, local_address, remove_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockyard.schema.chardevkinds import ChardevSocket
    from blockyard.schema.sockets import SocketAddress

__all__ = ["SocketChardev"]

_log = logging.getLogger(__name__)
#: Seconds between attempts to accept when the process is out of descriptors.
_PAUSE = 0.1


class SocketChardev(Chardev):
    """A stream socket.  A server serves one client at a time; the next waits in the queue."""

    type = SOCKET
    qom = (("connected", "bool"), ("addr", "SocketAddress"))
    options: ChardevSocket

    def __init__(self, label: str, options: ChardevSocket) -> None:
        super().__init__(label, options)
        self._address: SocketAddress = options.addr.flat
        self._server = options.server is not False
        self._listeners: list[socket.socket] = []
        self._ready: socket.socket | None = None
        self._stream: SocketStream | None = None
        self._changed = anyio.Event()
        self._closed = False

    @property
    def filename(self) -> str:
        """As QEMU writes it, with ``disconnected:`` before it while nobody is connected."""
        text = describe(self._address) + (",server=on" if self._server else "")
        return text if self._connected else f"disconnected:{text}"

    @property
    def _connected(self) -> bool:
        return self._ready is not None or self._stream is not None

    def properties(self) -> dict[str, tuple[str, Callable[[], Any]]]:
        """``connected`` and ``addr``."""
        return {
            "connected": ("bool", lambda: self._connected),
            "addr": ("SocketAddress", lambda: self._address),
        }

    async def open(self, *, wait: bool) -> None:
        """Listen, or connect; with reconnect-ms connecting goes on in :meth:`accept`."""
        _check(self.options, self._address)
        if self._server:
            self._file = absolute(self._address)
            self._listeners = await listen(self._address)
            self._address = local_address(self._listeners[0], self._address)
            if wait and self.options.wait:
                print(
                    f"{_program()}: info: QEMU waiting for connection on: {self.filename}",
                    file=sys.stderr,
                )
                self._ready = await self._accept_socket()
        elif not self.options.reconnect_ms:
            self._ready = await connect(self._address)

    async def close(self) -> None:
        """Close the listener, its file and the connection."""
        self._closed = True
        for sock in self._listeners:
            anyio.notify_closing(sock)
            sock.close()
        if self._listeners:
            self._listeners = []
            # A socket that was passed has a file too, but that is not ours.
            remove_path(self._file)
        if self._ready is not None:
            self._ready.close()
            self._ready = None
        if self._stream is not None:
            await self._stream.aclose()

    async def accept(self) -> SocketStream:
        """Wait for a client, or until connected."""
        sock = self._ready
        if sock is None and self._server:
            sock = await self._accept_socket()
        elif sock is None:
            sock = await self._reconnect()
        self._ready = None
        if self.options.nodelay and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = SocketStream(sock, self.log, self._gone)
        return self._stream

    def _gone(self) -> None:
        self._stream = None

    async def _accept_socket(self) -> socket.socket:
        """The first client of any of the listeners."""
        found: list[socket.socket] = []

        async def accept_from(listener: socket.socket, tasks: Any) -> None:
            client = await _accept(listener)
            if found:
                client.close()
            else:
                found.append(client)
                tasks.cancel_scope.cancel()

        if len(self._listeners) == 1:
            return await _accept(self._listeners[0])
        async with anyio.create_task_group() as tasks:
            for listener in self._listeners:
                tasks.start_soon(accept_from, listener, tasks)
            if not self._listeners:
                tasks.start_soon(anyio.sleep_forever)
        return found[0]

    async def _reconnect(self) -> socket.socket:
        """Try until it works; only the first failure of a row is reported."""
        reported = False
        pause = (self.options.reconnect_ms or 0) / 1000
        if not pause:
            await anyio.sleep_forever()
        while True:
            try:
                return await connect(self._address)
            except BlockyardError as error:
                if not reported:
                    _log.warning("Unable to connect character device %s: %s", self.label, error)
                reported = True
                await anyio.sleep(pause)


async def _accept(listener: socket.socket) -> socket.socket:
    while True:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            try:
                await anyio.wait_readable(listener)
            except anyio.ClosedResourceError:
                await anyio.sleep_forever()
        except OSError:
            # Out of descriptors, or the client has gone before we came.
            await anyio.sleep(_PAUSE if listener.fileno() >= 0 else float("inf"))
        else:
            client.setblocking(False)
            return client


def _check(options: ChardevSocket, address: SocketAddress) -> None:
    """What goes together and what does not, in QEMU's order and words."""
    server = options.server is not False
    if options.tls_creds:
        raise InvalidOption(f"No TLS credentials with id '{options.tls_creds}'")
    if address.type == "fd" and options.reconnect_ms is not None:
        raise InvalidOption("'reconnect-ms' option is incompatible with 'fd' address type")
    if options.tls_authz:
        raise InvalidOption("'tls_authz' option requires 'tls_creds' option")
    if server and options.reconnect_ms is not None:
        raise InvalidOption(
            "'reconnect-ms' option is incompatible with socket in server listen mode"
        )
    if not server and options.websocket:
        raise InvalidOption("Websocket client is not implemented")
    if not server and options.wait is not None:
        raise InvalidOption("'wait' option is incompatible with socket in client connect mode")
    for name in ("telnet", "tn3270", "websocket"):
        if getattr(options, name):
            raise Unsupported(f"'{name}' option is not supported by chardevs of this daemon")


def _program() -> str:
    return sys.argv[0].rpartition("/")[2]
