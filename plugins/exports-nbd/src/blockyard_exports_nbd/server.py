# SPDX-License-Identifier: Apache-2.0
"""The NBD server of a yard: listeners, the exports' names, clients in the handshake."""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from blockyard.errors import BlockyardError, Busy, InvalidOption, NotFound
from blockyard_exports_nbd.connection import Budget, Connection, tune_socket
from blockyard_exports_nbd.handshake import HANDSHAKE_LIMIT, Negotiated, negotiate
from blockyard_exports_nbd.listener import Listener, listen
from blockyard_exports_nbd.stream import ClientGoneError, ClientStream, ProtocolError

if TYPE_CHECKING:
    import socket

    from blockyard.yard import Yard
    from blockyard_exports_nbd.export import NbdExport

__all__ = ["NbdServer", "running_server", "start_server", "stop_server"]

_log = logging.getLogger(__name__)

_KEY = "nbd-server"
_DEFAULT_CONNECTIONS = 100
_DEFAULT_HANDSHAKE = 10
#: Seconds before accept is tried again when descriptors or memory are short.
_BREATH = 0.2
#: Seconds of handshake that every client gets, whoever else wants its place.
_PATIENCE = 1.0
_SHORTAGE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def running_server(yard: Yard) -> NbdServer:
    """The yard's server.

    :raises NotFound: if it is not running.
    """
    server: NbdServer | None = yard.extra.get(_KEY)
    if server is None:
        raise NotFound("NBD server not running")
    return server


async def start_server(yard: Yard, options: Any, budget: Budget | None = None) -> NbdServer:
    """nbd-server-start, or --nbd-server: NbdServerOptions or NbdServerOptionsLegacy.

    :raises BlockyardError: in QEMU's words; nothing is left of it then.
    """
    if _KEY in yard.extra:
        raise Busy("NBD server already running")
    server = NbdServer(yard, options, budget or Budget())
    try:
        await server.start(options.addr)
    except BaseException:
        server.budget.close()
        raise
    yard.extra[_KEY] = server
    return server


async def stop_server(yard: Yard) -> None:
    """nbd-server-stop: exports first, then everything else; bounded in time.

    :raises NotFound: if it is not running.
    """
    server = running_server(yard)
    server.stop_listening()
    await yard.exports.close("nbd")
    await server.close()


def _check_tls(yard: Yard, creds: str | None) -> None:
    if creds is None:
        return
    if yard.objects.find(creds) is None:
        raise NotFound(f"No TLS credentials with id '{creds}'")
    # No type of object has credentials yet.
    raise InvalidOption(f"Object with id '{creds}' is not TLS credentials")


@attrs.define(eq=False, repr=False)
class _Client:
    """A client from accept to its last byte; it counts as a connection so long."""

    socket: socket.socket
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    connection: Connection | None = None
    since: float = attrs.field(factory=anyio.current_time)


class NbdServer:
    """One server.  Made by :func:`start_server`."""

    def __init__(self, yard: Yard, options: Any, budget: Budget) -> None:
        """``options`` as for :func:`start_server`."""
        connections, seconds = options.max_connections, options.handshake_max_seconds
        #: 0 is any number.
        self.max_connections: int = _DEFAULT_CONNECTIONS if connections is None else connections
        self.handshake_seconds: int = _DEFAULT_HANDSHAKE if seconds is None else seconds
        self.budget = budget
        #: By the name that clients ask for.
        self.exports: dict[str, NbdExport] = {}
        self._yard = yard
        self._tls_creds: str | None = options.tls_creds
        self._listeners: list[Listener] = []
        self._accepters: list[anyio.CancelScope] = []
        self._clients: set[_Client] = set()
        #: Set once a client that was served has gone and nobody else is there.
        self.deserted = anyio.Event()
        #: Set and replaced when a client or an accepting task has gone.
        self._changed = anyio.Event()

    @property
    def addresses(self) -> list[Any]:
        """Where it listens, as ``socket.getsockname`` tells."""
        return [listener.socket.getsockname() for listener in self._listeners]

    @property
    def connections(self) -> int:
        """Clients at the moment, those in the handshake among them."""
        return len(self._clients)

    async def start(self, address: Any) -> None:
        """Listen; again, to listen at one more address.  Raises as :func:`start_server`."""
        _check_tls(self._yard, self._tls_creds)
        found = await listen(address)
        self._listeners += found
        for listener in found:
            scope = anyio.CancelScope()
            self._accepters.append(scope)
            self._yard.spawn(self._accept, listener, scope)

    def stop_listening(self) -> None:
        """Accept nobody more."""
        for scope in self._accepters:
            scope.cancel()

    async def close(self) -> None:
        """End the server; its exports are gone.  Clients in the handshake are cut off."""
        self.stop_listening()
        for client in self._clients:
            client.scope.cancel()
            if client.connection:
                client.connection.shutdown()
        while self._clients or self._accepters:
            await self._changed.wait()
        self._yard.extra.pop(_KEY, None)
        self.budget.close()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    # -- accepting

    async def _accept(self, listener: Listener, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                await self._yard.accepting.wait()
                while True:
                    await anyio.wait_readable(listener.socket)
                    await self._room()
                    await self._accept_one(listener)
        finally:
            listener.close()
            self._accepters.remove(scope)
            self._notify()

    async def _room(self) -> None:
        """Wait until another client may come; meanwhile they queue in the kernel.

        Who only dawdles in the handshake makes room: silent clients keep nobody out.
        """
        while self.max_connections and len(self._clients) >= self.max_connections:
            changed = self._changed
            with anyio.move_on_after(self._cut_dawdler()):
                await changed.wait()

    def _cut_dawdler(self) -> float | None:
        """End the oldest handshake if it had its time; seconds until the next look."""
        handshakes = [each for each in self._clients if not each.connection]
        oldest = min(handshakes, key=lambda each: each.since, default=None)
        if oldest is None:
            return None
        left = oldest.since + _PATIENCE - anyio.current_time()
        if left <= 0:
            oldest.scope.cancel()
        return max(left, _BREATH)

    async def _accept_one(self, listener: Listener) -> None:
        try:
            sock, _ = listener.socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _SHORTAGE:
                raise
            _log.warning("NBD server cannot accept: %s", error.strerror)
            await anyio.sleep(_BREATH)
            return
        client = _Client(sock)
        self._clients.add(client)
        self._yard.spawn(self._serve, client)

    # -- one client

    async def _serve(self, client: _Client) -> None:
        try:
            with client.scope:
                await self._introduce(client)
            if client.connection:
                with anyio.CancelScope(shield=True):
                    await client.connection.wait()
        finally:
            client.socket.close()
            self._clients.discard(client)
            if client.connection and not self._clients:
                self.deserted.set()
            self._notify()

    async def _introduce(self, client: _Client) -> None:
        """The handshake; afterwards the client is its export's."""
        tune_socket(client.socket)
        stream = ClientStream(client.socket, HANDSHAKE_LIMIT)
        try:
            with anyio.fail_after(self.handshake_seconds or None):
                negotiated = await negotiate(stream, self.exports)
        except ClientGoneError:
            return
        except (ProtocolError, TimeoutError) as error:
            _log.info("NBD client dropped in the handshake: %s", error or "too slow")
            return
        if negotiated is not None:
            client.connection = self._hand_over(client, negotiated)

    def _hand_over(self, client: _Client, negotiated: Negotiated) -> Connection | None:
        export = self.exports.get(negotiated.export.name)
        if export is not negotiated.export or export is None:
            return None  # it was removed meanwhile
        with contextlib.suppress(BlockyardError):
            connection = export.serve(client.socket.fileno(), negotiated)
            client.socket.detach()
            return connection
        return None
