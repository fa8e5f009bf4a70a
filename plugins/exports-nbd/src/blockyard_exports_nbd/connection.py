# SPDX-License-Identifier: Apache-2.0
"""A client in the transmission phase, carried by the native half."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from blockyard.dirtybitmap import bitmap_status
from blockyard.errors import from_errno
from blockyard_exports_nbd.native import API, ffi, lib
from blockyard_exports_nbd.options import MAX_PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blockyard.dirtybitmap import DirtyBitmap
    from blockyard.loop import Event, Loop
    from blockyard.root import Root
    from blockyard.yard import Yard
    from blockyard_exports_nbd.handshake import Negotiated

__all__ = ["Budget", "Connection", "ConnectionStats", "tune_socket"]

#: Bytes asked for in unix sockets: one large reply fits without a second wait.
_SOCKET_BUFFER = 4 << 20
#: SO_SNDBUFFORCE and SO_RCVBUFFORCE, beyond the system's limit, where we may.
_BUFFER_OPTIONS = ((32, socket.SO_SNDBUF), (33, socket.SO_RCVBUF))


def tune_socket(sock: socket.socket) -> None:
    """Prepare an accepted socket for many small and some very large replies."""
    if sock.family != socket.AF_UNIX:
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return
    for force, plain in _BUFFER_OPTIONS:
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, _SOCKET_BUFFER)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, plain, _SOCKET_BUFFER)


@attrs.frozen(eq=False, repr=False, kw_only=True)
class ConnectionStats:
    """What one client did so far."""

    #: Commands received, and of those: refused at once, and failed in the node.
    requests: int
    refused: int
    failed: int
    bytes_in: int
    bytes_out: int
    #: Operations on the socket.
    receives: int
    sends: int
    #: Commands without a complete reply, and bytes of memory held for them.
    in_flight: int
    held: int


@attrs.define(eq=False, repr=False)
class Budget:
    """Bytes that a server's clients hold at most; shared by their connections.

    ``total`` for all of them, ``client`` for each.
    """

    total: int = 512 << 20
    client: int = 64 << 20
    #: Commands of one client in flight.
    requests: int = 128
    native: Any = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.native = lib.by_nbd_server_create(self.total)
        if self.native == ffi.NULL:
            raise MemoryError

    @property
    def held(self) -> int:
        """Bytes set aside for clients at the moment."""
        return int(lib.by_nbd_server_held(self.native))

    def close(self) -> None:
        """Free it; no connection is left."""
        lib.by_nbd_server_free(self.native)
        self.native = ffi.NULL


class Connection:
    """One client; ended when :meth:`wait` returns."""

    def __init__(
        self,
        yard: Yard,
        loop: Loop,
        on_closed: Callable[[Connection], None],
        bitmaps: Sequence[DirtyBitmap] = (),
    ) -> None:
        """``on_closed`` runs once, on the control loop, if :meth:`start` succeeded.

        ``bitmaps`` are those of the export, whichever the client asked for.
        """
        self.loop = loop
        # Kept until the last command has been answered from them.
        self._bitmaps = tuple(bitmaps)
        self._yard = yard
        self._on_closed = on_closed
        self._closed = anyio.Event()
        self._native: Any = ffi.NULL
        self._tag = 0

    def start(self, root: Root, fd: int, client: Negotiated, budget: Budget) -> None:
        """Hand the client behind ``fd`` to the loop; the descriptor goes with it.

        :raises ImageIOError: without memory; the descriptor is still the caller's then.
        """
        core = self._yard.control.ffi
        params = ffi.new("struct by_nbd_params *")
        params.mode = client.mode
        params.contexts = sum(1 << context for context in client.contexts)
        params.bitmap_status = bitmap_status()
        params.nbitmaps = len(self._bitmaps)
        bitmaps = ffi.new(
            "uintptr_t[]", [int(core.cast("uintptr_t", each.native)) for each in self._bitmaps]
        )
        params.bitmaps = bitmaps
        params.max_payload = MAX_PAYLOAD
        params.max_requests = budget.requests
        params.size = client.size
        params.budget = budget.client
        params.read_only = client.export.read_only
        error = ffi.new("int *")
        self._tag = self._yard.control.tag(self._handle)
        self._native = lib.by_nbd_start(
            budget.native, API, int(core.cast("uintptr_t", self.loop.native)),
            int(core.cast("uintptr_t", root.native)), fd, params, ffi.NULL, 0, self._tag, error,
        )  # fmt: skip
        if self._native == ffi.NULL:
            self._yard.control.release(self._tag)
            raise from_errno(error[0], "NBD client")
        self.loop.users += 1

    def _handle(self, event: Event) -> None:
        """BY_NBD_CLOSED, the only event."""
        self._yard.control.release(self._tag)
        lib.by_nbd_free(self._native)
        self._native = ffi.NULL
        self._bitmaps = ()
        self.loop.users -= 1
        self._closed.set()
        self._on_closed(self)

    def shutdown(self, *, seconds: float = 0.0) -> None:
        """Begin to end it: let it answer what is in flight for so long, then cut it off."""
        if self._native != ffi.NULL:
            lib.by_nbd_shutdown(self._native, seconds <= 0, int(seconds * 1e9))

    async def wait(self) -> None:
        """Wait until it has ended."""
        await self._closed.wait()

    def stats(self) -> ConnectionStats | None:
        """Its counters; None once it has ended."""
        if self._native == ffi.NULL:
            return None
        raw = ffi.new("struct by_nbd_stats *")
        lib.by_nbd_get_stats(self._native, raw)
        names = (field.name for field in attrs.fields(ConnectionStats))
        return ConnectionStats(**{name: getattr(raw, name) for name in names})
