# SPDX-License-Identifier: Apache-2.0
"""The block graph: all nodes, and every way to change them.

Each change holds whole or leaves nothing behind.  It is made under one writer
lock, inside a drained section of the nodes it touches, as a transaction whose
last check is the permissions of everybody concerned.  The parts live beside
this file: ``opening``, ``refresh``, ``drain``, ``reopen``, ``replace``,
``activity``, ``moving``.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

from blockyard.changes import activity, closing, drain, moving, opening, reopen, replace
from blockyard.changes.deleting import check_deletable
from blockyard.changes.refresh import ask, refresh
from blockyard.changes.topology import roots_of
from blockyard.changes.transaction import Transaction
from blockyard.changes.writer import Writer
from blockyard.errors import (
    BlockyardError,
    ImageIOError,
    InvalidOption,
    NotFound,
    PermissionConflict,
    Unsupported,
    from_errno,
)
from blockyard.identifier import made_up_name
from blockyard.node import Child, Node
from blockyard.permission import ALL, NONE, Perm, names
from blockyard.request import MAX_LENGTH, Preallocation
from blockyard.root import Root, RootOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from blockyard.carrier import Carrier
    from blockyard.loop import Loop, Loops
    from blockyard.objects import Objects
    from blockyard.plugins import Registry
    from blockyard.qmp.event import EventBus

__all__ = ["Graph"]

_log = logging.getLogger(__name__)
_WRITES = Perm.WRITE | Perm.WRITE_UNCHANGED | Perm.RESIZE


class Graph:
    """Nodes by name, and what changes them.

    Options are the schema's objects (``BlockdevOptions``), visited already.
    Every coroutine may raise :class:`~blockyard.errors.BlockyardError`, with
    QEMU's text; the graph is then as it was before.
    """

    def __init__(self, carrier: Carrier, registry: Registry, loops: Loops) -> None:
        self.carrier = carrier
        self.registry = registry
        self.loops = loops
        #: The yard's; drivers find there what their options name (a secret, a group).
        self.objects: Objects
        #: The yard's: run a task in the background.
        self.spawn: Callable[..., None]
        #: The yard's; drivers tell there what has happened to their images.
        self.events: EventBus
        #: In the order in which they were added.
        self.nodes: dict[str, Node] = {}
        #: ``async with graph.writer:`` makes several changes one; it nests.
        self.writer = Writer()
        self._names = itertools.count()

    # -- finding

    def find(self, name: str) -> Node:
        """The node of that name.

        :raises NotFound: if there is none.
        """
        if name not in self.nodes:
            raise NotFound(f"Failed to find node with node-name='{name}'")
        return self.nodes[name]

    def lookup(self, name: str | None, device: str | None = None) -> Node:
        """The node of that name, where a command takes a device's name as well.

        :raises NotFound: if there is none; there are no devices here.
        """
        if name is None or name not in self.nodes:
            raise NotFound(f"Cannot find device='{device or ''}' nor node-name='{name or ''}'")
        return self.nodes[name]

    def lookup_child(self, name: str) -> Node:
        """The node that a child reference names.

        :raises NotFound: if there is none.
        """
        return self.lookup(name, device=name)

    # -- adding and deleting

    async def add(self, options: Any, *, monitor_owned: bool = True) -> Node:
        """Open a node and the children that its options define inline."""
        async with self.writer:
            node = await opening.open_tree(self, options)
            node.monitor_owned = monitor_owned
            return node

    async def delete(self, name: str) -> None:
        """End a node that :meth:`add` made, if nobody uses it.

        :raises NotFound: if there is no such node.
        :raises Busy: if it is used, or was not made by :meth:`add`.
        """
        async with self.writer:
            node = self.find(name)
            check_deletable(node)
            node.monitor_owned = False
            await self.release(node)

    async def release(self, node: Node) -> None:
        """End the node unless somebody uses it, and then its children likewise."""
        waiting = [node]
        while waiting:
            each = waiting.pop()
            known = self.nodes.get(each.name) is each
            if known and not each.parents and not each.monitor_owned and not each.holders:
                waiting += await self._close(each)

    async def let_go(self, node: Node) -> None:
        """The counterpart of adding to ``node.holders``: end the node if that was its last use."""
        async with self.writer:
            node.holders -= 1
            await self.release(node)

    async def discard(self, nodes: Iterable[Node]) -> None:
        """Undo the opening of nodes that nobody got to see."""
        for node in nodes:
            await self.release(node)

    async def close(self) -> None:
        """End all nodes; no root is left."""
        async with self.writer:
            for node in list(self.nodes.values()):
                node.monitor_owned = False
            for node in list(self.nodes.values()):
                await self.release(node)
            await self.carrier.close()

    # -- users from outside

    async def attach_root(
        self,
        node: Node,
        perm: Perm,
        shared: Perm = ALL,
        *,
        description: str = "an unnamed block device",
        owner: RootOwner | None = None,
        movable: bool = True,
        allow_inactive: bool = False,
        growable: bool = False,
        name: str = "root",
    ) -> Root:
        """A new user of the node.  ``growable``: it may write past the end.

        :raises PermissionConflict: if another user is in the way.
        """
        asleep = not node.active and allow_inactive
        awake = (perm, shared) if asleep else None
        perm, shared = (NONE, ALL) if asleep else (perm, shared)
        if not node.active and perm & ~Perm.CONSISTENT_READ:
            raise PermissionConflict(f"Permission '{names(perm)}' unavailable on inactive node")
        async with self.writer, Transaction() as tran:
            native = self.carrier.create_root(node)
            tran.add(abort=lambda: self.carrier.free_root(native))
            root = Root(
                node=node,
                native=native,
                perm=perm,
                shared=shared,
                description=description,
                name=name,
                owner=owner,
                movable=movable,
                allow_inactive=allow_inactive,
                growable=growable,
                awake=awake,
            )
            root.access = self.carrier.access(native)
            node.parents.insert(0, root)
            tran.add(abort=lambda: node.parents.remove(root))
            await refresh([node], tran)
            self.apply_rights(root)
            return root

    async def detach_root(self, root: Root) -> None:
        """End a user; its requests end first.  Ends the node too if it was the last use."""
        async with self.writer:
            node = root.node
            with drain.hurried([node]):
                await self.carrier.drain_begin([root.native], [])
            node.parents.remove(root)
            await self.carrier.free_root(root.native)
            await self._loosen([node])
            await self.release(node)

    async def set_root_permissions(self, root: Root, perm: Perm, shared: Perm) -> None:
        """Ask for more, or less.

        :raises PermissionConflict: if another user is in the way.
        """
        async with self.writer:
            async with Transaction() as tran:
                ask(root, perm, shared, tran)
                await refresh([root.node], tran)
            self.apply_rights(root)

    async def refresh_permissions(self, node: Node) -> None:
        """:meth:`blockyard.node.Node.refresh_permissions`."""
        async with self.writer, Transaction() as tran:
            await refresh([node], tran)

    def apply_rights(self, root: Root) -> None:
        """Let through natively what the root's permissions allow."""
        writable = root.perm & _WRITES != NONE
        self.carrier.set_root_rights(root.native, writable=writable, growable=root.growable)

    def roots(self) -> list[Root]:
        """All users from outside."""
        return roots_of(self.nodes.values())

    # -- changing

    def drained(self, nodes: Iterable[Node]) -> AbstractAsyncContextManager[None]:
        """``async with graph.drained(nodes):`` nothing is in flight in or above them."""
        return drain.drained(self.carrier, nodes)

    async def reopen(self, options: Sequence[Any]) -> None:
        """blockdev-reopen: new options for several nodes, all or none."""
        async with self.writer:
            await reopen.reopen_nodes(self, options)

    async def change_options(self, node: Node, changes: Mapping[str, Any]) -> None:
        """Give a node other options, flat; texts do for all types.  The rest stays."""
        async with self.writer:
            await reopen.change_options(self, node, changes)

    async def replace(self, old: Node, new: Node, *, keep: Iterable[Node] = ()) -> None:
        """Let ``new`` take the place of ``old`` under every parent that is not in ``keep``."""
        async with self.writer:
            await replace.replace_node(self, old, new, keep=keep)

    async def insert(self, node: Node, options: Any, child: str = "file") -> Node:
        """Open a node whose ``child`` is ``node``, and put it between it and its users."""
        async with self.writer:
            return await replace.insert_above(self, node, options, child)

    async def add_child(self, parent: Node, node: Node) -> None:
        """Make a node that nobody uses the last child in the parent's list of children."""
        from blockyard.changes import childlist

        async with self.writer:
            await childlist.add_child(self, parent, node)

    async def remove_child(self, parent: Node, name: str) -> None:
        """Take a child from the parent's list of children."""
        from blockyard.changes import childlist

        async with self.writer:
            await childlist.remove_child(self, parent, name)

    async def set_active(self, node: Node | None, active: bool) -> None:
        """blockdev-set-active, of one node or all."""
        async with self.writer:
            await activity.set_active(self, node, active)

    async def move(self, node: Node, home: Loop) -> None:
        """Let another loop serve the node and all that is connected with it.

        :raises Busy: if one of their users cannot move.
        """
        async with self.writer:
            await moving.move(self, node, home)

    async def resize(
        self, node: Node, length: int, prealloc: Preallocation = Preallocation.OFF
    ) -> None:
        """block_resize: make the node ``length`` bytes long."""
        if length < 0:
            raise InvalidOption("Parameter 'size' expects a >0 size")
        if length > MAX_LENGTH:
            raise InvalidOption(f"offset({length}) exceeds maximum({MAX_LENGTH})")
        async with self.writer:
            root = await self.attach_root(node, Perm.RESIZE)
            try:
                await self._truncate(root, length, prealloc)
            finally:
                await self.detach_root(root)

    async def _truncate(self, root: Root, length: int, prealloc: Preallocation) -> None:
        node = root.node
        if node.read_only:
            raise PermissionConflict("Image is read-only")
        await node.driver.check_resize(length)
        async with self.drained([node]):
            inner = self.carrier.access(root.native, inner=True)
            try:
                await inner.truncate(length, prealloc=prealloc, exact=False)
            except ImageIOError as error:
                told: BlockyardError = from_errno(error.errno or 5, "Failed to resize image")
                if error.errno == 95:
                    told = Unsupported("Image format driver does not support resize")
                mode = prealloc.name.lower()
                raise node.driver.truncate_error(length, mode, told) from error
        self.length_changed(node)

    # -- for opening and its neighbours

    def register(self, node: Node) -> None:
        """Put a node that is being opened under its name."""
        self.nodes[node.name] = node

    async def unregister(self, node: Node) -> None:
        """Take back :meth:`register`; the edges to the node's children go too."""
        self.nodes.pop(node.name, None)
        for child in await self._detach_children(node):
            if child.inherits_from is node:
                await self.release(child)

    def follow_children(self, node: Node) -> None:
        """Let the node's length follow that of the children that decide it."""
        for child in node.children.values():
            if node.driver.child_resized(child) is not None:
                self.carrier.watch_length(child.node, self.length_changed)

    def length_changed(self, node: Node) -> None:
        """Tell the nodes above a node of its new length."""
        waiting = [node]
        while waiting:
            for user in waiting.pop().parents:
                if isinstance(user, Child) and user.parent.native is not None:
                    length = user.parent.driver.child_resized(user)
                    if length is not None and length != user.parent.length:
                        self.carrier.set_length(user.parent, length)
                        waiting.append(user.parent)

    def generated_name(self) -> str:
        """A name for a node that was given none."""
        while (name := made_up_name(next(self._names))) in self.nodes:
            pass
        return name

    def home_for(self, node: Node) -> Loop:
        """The loop of a new node: its first child's, or the main one."""
        for child in node.children.values():
            home: Loop = child.node.home
            return home
        return self.loops.main

    # -- ending

    async def _close(self, node: Node) -> list[Node]:
        """End one node that nobody uses; answers its former children."""
        await closing.write_back(self.carrier, node)
        await self.carrier.free(node)
        del self.nodes[node.name]
        try:
            await node.driver.close_native()
        except (BlockyardError, OSError) as error:
            _log.warning("closing node '%s': %s", node.name, error)
        return await self._detach_children(node)

    async def _detach_children(self, node: Node) -> list[Node]:
        children = list(node.children.values())
        node.children.clear()
        for child in children:
            child.node.parents.remove(child)
        below = [child.node for child in children]
        await self._loosen(below)
        return below

    async def _loosen(self, nodes: list[Node]) -> None:
        """After a user has gone.  What only asks for less cannot be refused."""
        try:
            async with Transaction() as tran:
                await refresh(nodes, tran)
        except BlockyardError as error:
            _log.warning("loosening permissions: %s", error)
