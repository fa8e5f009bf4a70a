# SPDX-License-Identifier: Apache-2.0
"""The graph's hand on the native nodes: everything it asks of C, in one place."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import attrs

from blockyard import bitmaps
from blockyard.access import Access
from blockyard.errors import BlockyardError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from blockyard.loop import Control, Event, Loop
    from blockyard.node import Node, Opened
    from blockyard.request import Limits

__all__ = ["Carrier", "Statistics"]

_DETECT = {"off": 0, "on": 1, "unmap": 2}
_LENGTH_EVENT = 3
_THRESHOLD_EVENT = 2


class OpCounts(NamedTuple):
    """``struct by_op_stats``: what one kind of request has come to; times in nanoseconds."""

    done: int
    failed: int
    invalid: int
    bytes: int
    total_ns: int
    merged: int


@attrs.frozen
class Statistics:
    """``struct by_stats``; ``op`` is indexed by :class:`~blockyard.request.Op`."""

    op: Sequence[OpCounts]
    write_highest: int
    last_access_ns: int
    in_flight: int


class Carrier:
    """Native nodes, roots and drains, for one :class:`~blockyard.loop.Control`."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self._ffi = control.ffi
        self._lib = control.lib
        self._nodes: dict[int, Node] = {}
        #: Roots of :meth:`inside` that are idle: making and freeing one costs a round
        #: through all loops, and opening a chain asks for many.
        self._spare: list[Any] = []

    # -- nodes

    def create(self, node: Node, opened: Opened, slots: Sequence[str], home: Loop) -> None:
        """Make ``node.native``; its children are open."""
        ffi, lib = self._ffi, self._lib
        native = lib.by_node_create(
            ffi.cast("struct by_node_ops *", opened.ops),
            ffi.cast("void *", opened.state),
            len(slots),
            home.native,
        )
        if native == ffi.NULL:
            raise BlockyardError(
                f"Block driver '{node.type.name}' was built for another version of blockyard"
            )
        node.native = native
        self._nodes[int(ffi.cast("uintptr_t", native))] = node
        node.home = home
        home.users += 1
        lib.by_node_set_limits(native, self._limits(opened.limits))
        lib.by_node_set_length(native, opened.length)
        for slot in range(len(slots)):
            self.set_child(node, slot, slots[slot])
        self.set_flags(node)
        if node.bitmaps:
            bitmaps.attach(node)

    def make_slots(self, node: Node, count: int) -> None:
        """Give ``node`` so many slots for children, more than before.  Drained.

        :meth:`set_children` follows.

        :raises MemoryError: if there is no memory; nothing has changed.
        """
        if self._lib.by_node_set_children(node.native, count):
            raise MemoryError("by_node_set_children")

    def set_children(self, node: Node, slots: Sequence[str]) -> None:
        """Tell the native node all its children; there are slots enough.  Drained."""
        self._lib.by_node_set_children(node.native, len(slots))
        for slot, name in enumerate(slots):
            self.set_child(node, slot, name)

    def set_child(self, node: Node, slot: int, name: str) -> None:
        """Tell the native node who its child in ``slot`` is now.  Drained."""
        child = node.children.get(name)
        native = child.node.native if child else self._ffi.NULL
        self._lib.by_node_set_child(node.native, slot, native)
        node.driver.child_changed(name)

    def set_flags(self, node: Node) -> None:
        """Tell the native node its flags."""
        lib = self._lib
        lib.by_node_set_detect_zeroes(node.native, _DETECT[node.detect_zeroes])
        lib.by_node_set_discard(node.native, node.discard == "unmap")
        lib.by_node_set_no_flush(node.native, node.cache_no_flush)

    def set_limits(self, node: Node, limits: Limits) -> None:
        """After a reopen.  Drained."""
        self._lib.by_node_set_limits(node.native, self._limits(limits))

    def set_length(self, node: Node, length: int) -> None:
        """After a reopen or activation.  Drained."""
        self._lib.by_node_set_length(node.native, length)

    def watch_length(self, node: Node, changed: Callable[[Node], None]) -> None:
        """Call ``changed`` on the control thread after each change of the node's length."""
        if not node.length_tag:
            node.length_tag = self.control.tag(lambda event: changed(node))
            self._lib.by_node_set_tag(node.native, node.length_tag)

    def set_home(self, node: Node, home: Loop) -> None:
        """Move the node to another loop.  Drained."""
        node.home.users -= 1
        home.users += 1
        node.home = home
        self._lib.by_node_set_home(node.native, home.native)

    def length(self, node: Node) -> int:
        """Bytes."""
        return int(self._lib.by_node_get_length(node.native))

    def node_at(self, address: int) -> Node | None:
        """The node whose native half is at ``address``."""
        return self._nodes.get(address)

    def statistics(self, node: Node) -> Statistics:
        """What the node has carried since it was opened."""
        raw = self._ffi.new("struct by_stats *")
        self._lib.by_node_get_stats(node.native, raw)
        # Copies: the memory ends with this call.
        op = [OpCounts(*(getattr(each, name) for name in OpCounts._fields)) for each in raw.op]
        return Statistics(op, raw.write_highest, raw.last_access_ns, raw.in_flight)

    def busy(self) -> list[Node]:
        """The nodes with requests in flight, the lowest of each chain.  Any thread."""
        found = [node for node in list(self._nodes.values()) if self.statistics(node).in_flight]
        return [
            node
            for node in found
            if not any(child.node in found for child in list(node.children.values()))
        ]

    def set_threshold(self, node: Node, threshold: int, tag: int) -> None:
        """Ask for one event when a write goes beyond ``threshold`` bytes; 0 for none."""
        self._lib.by_node_set_threshold(node.native, threshold, tag)

    def threshold(self, node: Node) -> int:
        """The threshold that is set; 0 for none."""
        return int(self._lib.by_node_get_threshold(node.native))

    async def free(self, node: Node) -> None:
        """End the native node: drained, and nobody points to it."""
        native = node.native
        if node.bitmaps:
            bitmaps.close(node)
        # Now: another node may be made at its address before this task runs again.
        del self._nodes[int(self._ffi.cast("uintptr_t", native))]
        await self.control.call(lambda tag: self._lib.by_node_free(native, tag))
        self.control.release(node.threshold_tag)
        self.control.release(node.length_tag)
        node.native = None
        node.home.users -= 1

    # -- roots

    def create_root(self, node: Node) -> Any:
        """A ``struct by_root *`` on the node."""
        root = self._lib.by_root_create(node.native)
        if root == self._ffi.NULL:
            raise MemoryError("by_root_create")
        return root

    def set_root_node(self, root: Any, node: Node) -> None:
        """Where the root's requests enter from now on.  Drained."""
        self._lib.by_root_set_node(root, node.native)

    def set_root_rights(self, root: Any, *, writable: bool, growable: bool) -> None:
        """What may come through the root."""
        self._lib.by_root_set_writable(root, writable, growable)

    def set_root_writethrough(self, root: Any, writethrough: bool) -> None:
        """Whether each write of the root is on stable storage when it completes."""
        self._lib.by_root_set_writethrough(root, writethrough)

    async def free_root(self, root: Any) -> None:
        """End a root that is drained or idle."""
        await self.control.call(lambda tag: self._lib.by_root_free(root, tag))

    def access(self, root: Any, *, inner: bool = False) -> Access:
        """Requests from Python through the root."""
        return Access(self.control, root, inner=inner, node_at=self.node_at)

    @asynccontextmanager
    async def inside(self, node: Node) -> AsyncIterator[Access]:
        """Requests to the node for as long as ``async with`` lasts, drained or not.

        They are not bound by permissions: whose they are has seen to those.
        """
        root = self._spare.pop() if self._spare else self.create_root(node)
        self.set_root_node(root, node)
        self.set_root_rights(root, writable=not node.read_only, growable=True)
        try:
            yield self.access(root, inner=True)
        except BaseException:
            # A request whose caller was cancelled is still on its way.
            with anyio.CancelScope(shield=True):
                await self.drain_begin([root], [])
                await self.free_root(root)
            raise
        self._spare.append(root)

    async def close(self) -> None:
        """Give back what :meth:`inside` keeps; nothing is under way."""
        while self._spare:
            await self.free_root(self._spare.pop())

    async def flush(self, node: Node) -> None:
        """Flush the node, inside a drained section too.

        :raises ImageIOError: with the errno.
        """
        async with self.inside(node) as access:
            await access.flush()

    # -- drain

    async def drain_begin(self, roots: Sequence[Any], nodes: Iterable[Node]) -> None:
        """Park new requests at the roots; returns when nothing is in flight."""
        await self._drain(self._lib.by_drain_begin, roots, nodes)

    async def drain_end(self, roots: Sequence[Any], nodes: Iterable[Node]) -> None:
        """Let the parked requests go on."""
        await self._drain(self._lib.by_drain_end, roots, nodes)

    async def _drain(self, function: Any, roots: Sequence[Any], nodes: Iterable[Node]) -> None:
        natives = [node.native for node in nodes if node.native is not None]
        root_array = self._ffi.new("struct by_root *[]", list(roots))
        node_array = self._ffi.new("struct by_node *[]", natives)
        await self.control.call(
            lambda tag: function(root_array, len(roots), node_array, len(natives), tag)
        )

    async def synchronise(self) -> Event:
        """Wait until every loop has passed a quiescent point."""
        return await self.control.call(self._lib.by_synchronise)

    def _limits(self, limits: Limits) -> Any:
        raw = self._ffi.new("struct by_limits *", attrs.asdict(limits))
        raw.size = self._ffi.sizeof("struct by_limits")
        return raw
