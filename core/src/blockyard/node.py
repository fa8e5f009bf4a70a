# SPDX-License-Identifier: Apache-2.0
"""Nodes and drivers: what the block graph is made of.

A *node* is one driver instance in the graph; an edge to a child is a
:class:`Child`.  A *driver* has two halves.  Its control half is a
:class:`Driver` (``driver.py``), ``async`` Python on the control loop: open,
close, reopen, permissions, information.  Its request half is a table of C
functions (``struct by_node_ops``), or the methods of a :class:`PythonDriver`.

The graph (``graph.py``) owns every node and is the only one that changes the
fields of this module's classes.  Drivers read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard import permission
from blockyard.declaration import ChildSpec, DriverType, Opened
from blockyard.driver import Driver, PythonDriver
from blockyard.errors import BlockyardError
from blockyard.flags import Flags
from blockyard.permission import Role
from blockyard.request import Limits

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from blockyard.access import Access
    from blockyard.dirtybitmap import DirtyBitmap
    from blockyard.graph import Graph
    from blockyard.permission import Perm

__all__ = ["Child", "ChildSpec", "Driver", "DriverType", "Node", "Opened", "PythonDriver"]

_FLAG_NAMES = tuple(field.name for field in attrs.fields(Flags))


@attrs.define(eq=False, kw_only=True)
class Child:
    """An edge: ``parent`` uses ``node`` under ``name``, with these permissions."""

    name: str
    role: Role
    parent: Node
    node: Node
    perm: Perm = permission.NONE
    shared: Perm = permission.ALL
    #: How many count on it that the edge stays; it cannot be changed meanwhile.
    frozen: int = 0

    @property
    def description(self) -> str:
        """The parent, as permission errors name it."""
        return f"node '{self.parent.name}'"

    def permissions_below(self, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """What this edge carries when the parent's users together ask (perm, shared)."""
        wanted, offered = self.parent.driver.child_permissions(self, perm, shared)
        return wanted, permission.ALL if self.node.force_share else offered


@attrs.define(eq=False, repr=False, kw_only=True)
class Node:
    """One driver instance.  The flags are the effective ones, after inheritance.

    ``parents`` holds edges of the graph and roots alike, the newest first.
    """

    name: str
    type: DriverType
    graph: Graph
    #: The visited BlockdevOptions; ``options.u`` is the driver's branch.
    options: Any
    #: The common options as asked for, before a driver fell back to read-only.
    flags: Flags = attrs.field(factory=Flags)
    driver: Driver = attrs.field(init=False)
    #: In slot order.
    children: dict[str, Child] = attrs.field(factory=dict)
    parents: list[permission.User] = attrs.field(factory=list)
    #: Its dirty bitmaps by name, the oldest first; ``bitmaps.py`` changes it.
    bitmaps: dict[str, DirtyBitmap] = attrs.field(factory=dict)
    #: ``struct by_node *``; None until opened.
    native: Any = None
    limits: Limits = attrs.field(factory=Limits)
    read_only: bool = False
    auto_read_only: bool = False
    cache_direct: bool = False
    cache_no_flush: bool = False
    #: ``"ignore"`` or ``"unmap"``.
    discard: str = "ignore"
    #: ``"off"``, ``"on"`` or ``"unmap"``.
    detect_zeroes: str = "off"
    force_share: bool = False
    #: Opened to ask about the image and not to read it: keys stay unread.
    without_contents: bool = False
    #: Opened to be checked: what is wrong with the image is neither mended nor refused
    #: before the check has told of it.
    checking: bool = False
    #: False after blockdev-set-active active=false: the image may belong to somebody else.
    active: bool = True
    #: The parent whose inline definition made this node, which it inherits options from.
    inherits_from: Node | None = None
    #: The backing file's name and format as the image records them; empty for none.
    backing_file: str = ""
    backing_format: str = ""
    #: The name of the backing node that opening the image by its name would bring; where
    #: the present one has another name, the backing file is overridden.
    auto_backing_file: str = ""
    #: Whether blockdev-add made it, so that blockdev-del may end it.
    monitor_owned: bool = False
    #: How many keep it open without using it: see :meth:`blockyard.graph.Graph.let_go`.
    holders: int = 0
    #: The :class:`blockyard.loop.Loop` that serves it.
    home: Any = None
    #: The tags of the native events that tell of BLOCK_WRITE_THRESHOLD and of a new
    #: length; 0 for none.
    threshold_tag: int = 0
    length_tag: int = 0

    def __repr__(self) -> str:
        return f"<Node '{self.name}' ({self.type.name})>"

    @property
    def length(self) -> int:
        """The node's present length in bytes; it is open."""
        return self.graph.carrier.length(self)

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster, of the node or of what it shows; 0 where there are none."""
        return self._clustered.cluster_size

    @property
    def allocation_unit(self) -> int:
        """Bytes of the least that gets data alone, a subcluster or a cluster; 0: no clusters."""
        limits = self._clustered
        return min(limits.write_zeroes_alignment or limits.cluster_size, limits.cluster_size)

    @property
    def _clustered(self) -> Limits:
        """The limits of the first node, from this one down, that has clusters."""
        node = self
        while not node.limits.cluster_size:
            below = [c.node for c in node.children.values() if c.role & Role.FILTERED]
            if not below:
                break
            node = below[0]
        return node.limits

    @property
    def writable(self) -> bool:
        """Whether data may change through this node: not read-only, and active."""
        return not self.read_only and self.active

    def take_flags(self, flags: Flags) -> None:
        """Make ``flags`` effective."""
        for name in _FLAG_NAMES:
            setattr(self, name, getattr(flags, name))

    def apply_auto_read_only(self, message: str) -> None:
        """Fall back to read-only where the user allows it; for a driver's ``open``.

        :raises BlockyardError: with ``message`` if auto-read-only is off.
        """
        if self.read_only:
            return
        if not self.auto_read_only:
            raise BlockyardError(message)
        self.read_only = True

    def record_backing(self, file: str | None, fmt: str | None) -> None:
        """Note what the header says of the backing file; for ``named_children``.

        Also after an activation that read the header again.
        """
        self.backing_file = self.auto_backing_file = file or ""
        self.backing_format = fmt or ""

    async def refresh_permissions(self) -> None:
        """Ask the children again, whose permissions depend on what the driver has changed.

        :raises PermissionConflict: if another user is in the way; nothing has changed.
        """
        await self.graph.refresh_permissions(self)

    def reading(self, name: str = "file") -> AbstractAsyncContextManager[Access]:
        """``async with node.reading("file") as access:`` requests to a child.

        They enter below this node, so that no drained section holds them back; with
        them a driver reads headers before its own native half is there.
        """
        return self.graph.carrier.inside(self.children[name].node)
