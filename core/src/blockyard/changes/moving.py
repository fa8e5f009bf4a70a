# SPDX-License-Identifier: Apache-2.0
"""Moving nodes between loops.

Nodes that are connected are served by one loop, so they move together, and only
if all their users can follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.changes.topology import connected, roots_of
from blockyard.errors import Busy

if TYPE_CHECKING:
    from blockyard.graph import Graph
    from blockyard.loop import Loop
    from blockyard.node import Node

__all__ = ["move"]


async def move(graph: Graph, node: Node, home: Loop) -> None:
    """Let ``home`` serve ``node`` and everything connected with it from now on.

    :raises Busy: if a user is bound to its present loop.
    """
    nodes = [each for each in connected(node) if each.home is not home]
    roots = roots_of(nodes)
    for root in roots:
        if not root.movable:
            raise Busy("Cannot change iothread of active block backend")
    async with graph.drained(nodes):
        for each in nodes:
            graph.carrier.set_home(each, home)
        for root in roots:
            if root.owner is not None:
                await root.owner.home_changed(home)
