# SPDX-License-Identifier: Apache-2.0
"""Roots: where users outside the graph (exports, jobs, library handles) enter it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from blockyard.access import Access
    from blockyard.loop import Loop
    from blockyard.node import Node
    from blockyard.permission import Perm

__all__ = ["Root", "RootOwner"]


class RootOwner(Protocol):
    """What a root's owner can be asked; all of it is optional for :class:`Root`."""

    async def drained_begin(self) -> None:
        """Stop sending requests, at the next pause point at the latest; nests."""

    async def drained_end(self) -> None:
        """Go on."""

    async def home_changed(self, home: Loop) -> None:
        """The node is served by another loop now; inside a drained section."""


@attrs.define(eq=False, kw_only=True)
class Root:
    """A user of a node from outside the graph, with its permissions.

    Made by :meth:`blockyard.graph.Graph.attach_root`, ended by ``detach_root``.
    """

    node: Node
    #: ``struct by_root *``.
    native: Any
    perm: Perm
    shared: Perm
    #: How permission errors name the user.
    description: str = "an unnamed block device"
    name: str = "root"
    owner: RootOwner | None = None
    #: Whether the node may be moved to another iothread under this user.
    movable: bool = True
    #: Whether the user keeps working while the node is inactive.
    allow_inactive: bool = False
    #: Whether writes past the end of the node are let through.
    growable: bool = False
    #: The permissions to come back to when the node is active again; None when it is.
    awake: tuple[Perm, Perm] | None = None
    #: Requests from Python through this root.
    access: Access = attrs.field(init=False)
