# SPDX-License-Identifier: Apache-2.0
"""The export type ``nbd``: a node under a name of the NBD server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from blockyard import bitmaps
from blockyard.bitmaps import Check
from blockyard.errors import Busy, InvalidOption, NotFound
from blockyard.export import Export, ExportType
from blockyard.permission import Role
from blockyard_exports_nbd.connection import Connection, ConnectionStats
from blockyard_exports_nbd.schema import NBD
from blockyard_exports_nbd.server import NbdServer, running_server
from blockyard_exports_nbd.wire import MAX_BITMAPS, MAX_STRING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockyard.dirtybitmap import DirtyBitmap
    from blockyard.loop import Loop
    from blockyard.node import Node
    from blockyard.root import Root
    from blockyard.yard import Yard
    from blockyard_exports_nbd.handshake import Negotiated

__all__ = ["NbdExport"]

#: Seconds in which a client that is cut off still gets the answers under way.
_LAST_REPLIES = 0.5
_MAX_BLOCK = 1 << 16


class NbdExport(Export):
    """One export.  Its clients are served by the loop of its that has the fewest."""

    type: ClassVar[ExportType] = NBD

    def __init__(
        self, yard: Yard, export_id: str, options: Any, root: Root, loops: Sequence[Loop]
    ) -> None:
        super().__init__(yard, export_id, options, root, loops)
        branch = options.u
        self.name: str = options.node_name if branch.name is None else branch.name
        self.description: str | None = branch.description
        self.allocation_depth = bool(branch.allocation_depth)
        self.read_only = not self.writable
        self._server: NbdServer
        self._bitmaps: list[DirtyBitmap] = []
        self._connections: list[Connection] = []

    # -- what the handshake asks

    @property
    def size(self) -> int:
        """The node's present length; a client keeps what it was told."""
        return self.node.length

    @property
    def multi_conn(self) -> bool:
        """Whether clients are told that several connections see the same data."""
        return self._server.max_connections != 1

    @property
    def bitmap_names(self) -> list[str]:
        """The dirty bitmaps that clients may ask for."""
        return [bitmap.name for bitmap in self._bitmaps]

    @property
    def minimum_block(self) -> int:
        """The smallest request that needs no read-modify-write."""
        return min(self.node.limits.request_alignment, _MAX_BLOCK)

    # -- life

    async def start(self) -> None:
        """Show the name to clients.

        :raises BlockyardError: in QEMU's words.
        """
        server = running_server(self.yard)
        if len(self.name.encode("utf-8", "surrogateescape")) > MAX_STRING:
            raise InvalidOption(f"export name '{self.name}' too long")
        if len((self.description or "").encode("utf-8", "surrogateescape")) > MAX_STRING:
            raise InvalidOption(f"description '{self.description}' too long")
        if self.name in server.exports:
            raise Busy(f"NBD server already has export named '{self.name}'")
        self._bitmaps = [self._find_bitmap(named) for named in self.options.u.bitmaps or ()]
        if len(self._bitmaps) > MAX_BITMAPS:
            raise InvalidOption(f"export '{self.name}' has more than {MAX_BITMAPS} bitmaps")
        for bitmap in self._bitmaps:
            bitmap.busy = True
        self._server = server
        server.exports[self.name] = self

    def _find_bitmap(self, named: Any) -> DirtyBitmap:
        if isinstance(named, str):
            bitmap = self._find_below(named)
        else:
            bitmap = bitmaps.lookup(self.yard.graph, named.node, named.name)
        bitmap.check(Check.USE)
        return bitmap

    def _find_below(self, name: str) -> DirtyBitmap:
        """A bitmap of the node, or of one whose data it shows where it has none of its own."""
        node: Node | None = self.node
        while node is not None:
            if bitmap := bitmaps.find(node, name):
                if self.read_only and node.writable and bitmap.recording:
                    raise InvalidOption(
                        f"Enabled bitmap '{name}' incompatible with readonly export"
                    )
                return bitmap
            node = _below(node)
        raise NotFound(f"Bitmap '{name}' is not found")

    async def shutdown(self) -> None:
        """Hide the name, answer what is in flight, cut off every client."""
        if self._server.exports.get(self.name) is self:
            del self._server.exports[self.name]
        leaving = list(self._connections)
        for connection in leaving:
            connection.shutdown(seconds=_LAST_REPLIES)
        try:
            for connection in leaving:
                await connection.wait()
        finally:
            for bitmap in self._bitmaps:
                bitmap.busy = False

    def in_use(self) -> bool:
        """Whether a client is in the transmission phase."""
        return bool(self._connections)

    async def home_changed(self, home: Loop) -> None:
        """New clients follow the node; the others' requests find their way as before."""
        if not isinstance(self.options.iothread, list):
            for loop in self.loops:
                loop.users -= 1
            home.users += 1
            self.loops = (home,)

    # -- clients

    def serve(self, fd: int, client: Negotiated) -> Connection:
        """Take over a client that has chosen this export.

        :raises ImageIOError: if there is no memory for it; the descriptor stays the caller's.
        """
        counts = {id(loop): 0 for loop in self.loops}
        for connection in self._connections:
            counts[id(connection.loop)] = counts.get(id(connection.loop), 0) + 1
        loop = min(self.loops, key=lambda loop: counts[id(loop)])
        made = Connection(self.yard, loop, self._connections.remove, self._bitmaps)
        made.start(self.root, fd, client, self._server.budget)
        self._connections.append(made)
        return made

    def statistics(self) -> list[ConnectionStats]:
        """The counters of every client, the oldest first."""
        found = (connection.stats() for connection in self._connections)
        return [stats for stats in found if stats is not None]


def _below(node: Node) -> Node | None:
    """Where a filter's data is, or what an overlay lacks."""
    role = Role.COW | (Role.FILTERED if node.type.kind == "filter" else Role(0))
    return next((child.node for child in node.children.values() if child.role & role), None)
