# SPDX-License-Identifier: Apache-2.0
"""The connections of one node: how many, and what happens when they are lost.

The native half carries requests and tells what becomes of its connections; here it is
decided when a new one is made, and how long requests wait for it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio

from blockyard.errors import BlockyardError, from_errno
from blockyard_drivers_nbd.dialing import Target, dial
from blockyard_drivers_nbd.native import ffi, lib

if TYPE_CHECKING:
    import socket

    from blockyard.loop import Event, Loop
    from blockyard.node import Node
    from blockyard_drivers_nbd.information import Export

__all__ = ["Link", "LinkStats"]

_log = logging.getLogger(__name__)

#: Pauses between two attempts to connect, in seconds; they double.
_PAUSE_FIRST = 0.1
_PAUSE_MOST = 5.0
#: A connection that lasted so long was a good one.
_GOOD_SECONDS = 5.0
#: How long whoever waits for requests in flight waits for a server that is gone, and for
#: one that is silent.
GONE_SECONDS = 10.0
SILENT_SECONDS = 30.0

LinkStats = dict[str, int]


class Link:
    """The native client of a node, with its connections."""

    def __init__(
        self, node: Node, target: Target, *, delay: float, context_kind: int, loop: Loop
    ) -> None:
        """``delay``: seconds that requests wait for a server that is gone."""
        self._node = node
        self._target = target
        self._delay = delay
        self._context_kind = context_kind
        self._loop = loop
        self._control = node.graph.carrier.control
        self._export: Export
        self._native: Any = ffi.NULL
        self._tag = 0
        self._stopped = anyio.Event()
        self._stopping = False
        self._scopes: set[anyio.CancelScope] = set()
        self._nudge = anyio.Event()
        self._reconnecting = False
        self._connected_at = 0.0
        self._pause = 0.0
        self._watch: anyio.CancelScope | None = None

    # -- life

    def start(self, sock: socket.socket, export: Export) -> None:
        """Make the native client, and give it its first connection.

        :raises ImageIOError: without memory; the socket is closed then.
        """
        self._export = export
        core = self._control.ffi
        self._tag = self._control.tag(self._handle)
        loop = int(core.cast("uintptr_t", self._loop.native))
        self._native = lib.by_nbdc_create(loop, self._facts(export), self._tag)
        if self._native == ffi.NULL:
            self._control.release(self._tag)
            sock.close()
            raise from_errno(12, "NBD client")
        self._add(sock, export)

    @property
    def ops(self) -> int:
        """Address of the node's operations."""
        return int(lib.by_nbdc_ops(self._native))

    @property
    def state(self) -> int:
        """Address of the client."""
        return int(ffi.cast("uintptr_t", self._native))

    @property
    def read_only(self) -> bool:
        """Whether the server refuses writes."""
        return self._export.read_only

    async def stop(self) -> None:
        """Say goodbye and end all connections; nothing is in flight.  Cannot be cancelled."""
        if self._native == ffi.NULL or self._stopping:
            return
        self._stopping = True
        for scope in tuple(self._scopes):
            scope.cancel()
        if lib.by_nbdc_stop(self._native) < 0:
            raise from_errno(12, "NBD client")
        with anyio.CancelScope(shield=True):
            await self._stopped.wait()

    def free(self) -> None:
        """After :meth:`stop`, when the native node is gone."""
        if self._native != ffi.NULL:
            self._control.release(self._tag)
            lib.by_nbdc_free(self._native)
            self._native = ffi.NULL

    def stats(self) -> LinkStats:
        """Counters of the native client, by their names in ``csrc/control.h``."""
        raw = ffi.new("struct by_nbdc_stats *")
        lib.by_nbdc_get_stats(self._native, raw)
        return {name: getattr(raw, name) for name, _ in ffi.typeof("struct by_nbdc_stats").fields}

    # -- connections

    def _facts(self, export: Export) -> Any:
        known = export.context_id is not None
        return ffi.new(
            "struct by_nbdc_facts *",
            {
                "mode": export.mode,
                "context": self._context_kind if known else lib.BY_NBDC_NO_CONTEXT,
                "context_id": export.context_id or 0,
                "flags": export.flags,
                "block": export.block,
            },
        )

    def _add(self, sock: socket.socket, export: Export) -> None:
        """Hand a connection to the loop; if it cannot be, that is as if it were lost."""
        if lib.by_nbdc_add(self._native, sock.detach(), self._facts(export)) < 0:
            return
        self._connected_at = anyio.current_time()
        lib.by_nbdc_set_patient(self._native, self._delay > 0)

    async def _dial(self) -> None:
        """Add a connection.

        :raises BlockyardError: if there is none, or it leads to something else.
        """
        sock, export = await dial(self._target)
        try:
            self._check_same(export)
        except BaseException:
            sock.close()
            raise
        self._add(sock, export)

    def _check_same(self, found: Export) -> None:
        """The node has promised its users what the first connection led to."""
        first = self._export
        if found.size != first.size:
            raise BlockyardError(f"export size has changed from {first.size} to {found.size}")
        if found.block > first.block or found.payload < first.payload:
            raise BlockyardError("block size constraints have become narrower")
        if first.flags & _SERVED & ~found.flags or (found.read_only and not first.read_only):
            raise BlockyardError("the export can do less than before")
        if first.context_id is not None and found.context_id is None:
            raise BlockyardError("the export has lost its metadata context")

    # -- what the native half tells

    def _handle(self, event: Event) -> None:
        if event.kind == lib.BY_NBDC_STOPPED:
            self._stopped.set()
        elif self._stopping:
            return
        elif event.kind == lib.BY_NBDC_LOST and not event.a:
            self._lost(event.result)
        elif event.kind == lib.BY_NBDC_WANTED:
            self._nudge.set()
        elif event.kind == lib.BY_NBDC_BUSY and self._export.multi_conn:
            self._spawn(self._widen)

    def _lost(self, result: int) -> None:
        _log.info("node '%s': the NBD server is gone (%d)", self._node.name, result)
        if anyio.current_time() - self._connected_at >= _GOOD_SECONDS:
            self._pause = 0.0
        if not self._reconnecting:
            self._reconnecting = True
            self._spawn(self._reconnect)

    def _spawn(self, function: Any) -> None:
        self._node.graph.spawn(self._scoped, function)

    async def _scoped(self, function: Any) -> None:
        """Run until :meth:`stop`."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if not self._stopping:
                    await function()
            finally:
                self._scopes.discard(scope)

    # -- again

    async def _reconnect(self) -> None:
        async with anyio.create_task_group() as tasks:
            if self._delay:
                tasks.start_soon(self._lose_patience)
            await self._until_connected()
            tasks.cancel_scope.cancel()

    async def _lose_patience(self) -> None:
        await anyio.sleep(self._delay)
        lib.by_nbdc_set_patient(self._native, False)

    async def _until_connected(self) -> None:
        while True:
            self._nudge = anyio.Event()
            with anyio.move_on_after(self._pause):
                await self._nudge.wait()
            self._pause = min(max(2 * self._pause, _PAUSE_FIRST), _PAUSE_MOST)
            try:
                await self._dial()
            except BlockyardError as error:
                _log.info("node '%s': %s", self._node.name, error)
            else:
                # Before anything else can be told of the new connection.
                self._reconnecting = False
                return

    async def _widen(self) -> None:
        """More connections for more requests; a server that takes no more is left alone."""
        try:
            while self.stats()["connections"] < lib.BY_NBDC_CONNECTIONS:
                before = self.stats()["connections"]
                await self._dial()
                await anyio.sleep(_PAUSE_FIRST)
                if self.stats()["connections"] <= before:
                    return
        except BlockyardError as error:
            _log.info("node '%s': no further connection: %s", self._node.name, error)

    # -- nobody waits for ever

    def hurry_begin(self) -> None:
        """Somebody waits for requests in flight."""
        if self._watch is None and not self._stopping:
            self._watch = anyio.CancelScope()
            self._node.graph.spawn(self._scoped, self._bound)

    def hurry_end(self) -> None:
        """Nobody waits any more."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _bound(self) -> None:
        with self._watch or anyio.CancelScope():
            silent = 0.0
            before = self.stats()
            while True:
                await anyio.sleep(GONE_SECONDS)
                now = self.stats()
                if now["waiting"] and not now["connections"]:
                    lib.by_nbdc_set_patient(self._native, False)
                moved = now["progress"] != before["progress"] or not now["in_flight"]
                silent = 0.0 if moved else silent + GONE_SECONDS
                if silent >= SILENT_SECONDS:
                    lib.by_nbdc_cut(self._native)
                before = now


#: Flags of operations that the node serves if the first connection could: flush, FUA, trim,
#: zeroes, cache, fast zeroes.
_SERVED = 0x04 | 0x08 | 0x20 | 0x40 | 0x400 | 0x800
