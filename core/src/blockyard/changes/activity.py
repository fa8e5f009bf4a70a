# SPDX-License-Identifier: Apache-2.0
"""blockdev-set-active: letting go of images and taking them back.

An inactive node keeps its place in the graph but neither writes nor holds on to
what it read: another process may use the image (QEMU's migration hand-over).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from blockyard import bitmaps
from blockyard.bitmaps import Check
from blockyard.changes.refresh import ask, refresh
from blockyard.changes.topology import parent_nodes, sorted_below
from blockyard.changes.transaction import Transaction
from blockyard.errors import BlockyardError, Busy, from_errno
from blockyard.permission import ALL, NONE, Perm, cumulative
from blockyard.root import Root

if TYPE_CHECKING:
    from blockyard.graph import Graph
    from blockyard.node import Node

__all__ = ["activate", "set_active"]

_WRITES = Perm.WRITE | Perm.WRITE_UNCHANGED
_EPERM = 1


async def set_active(graph: Graph, node: Node | None, active: bool) -> None:
    """Activate or inactivate one node with what is below it, or all nodes.

    :raises Busy: if an active node uses the one to be inactivated.
    :raises BlockyardError: if a user still needs to write, or the driver fails.
    """
    if active:
        for each in [node] if node else list(graph.nodes.values()):
            await activate(graph, each)
    elif node is not None:
        await _inactivate_one(graph, node)
    else:
        await _inactivate_all(graph)


async def activate(graph: Graph, node: Node) -> None:
    """Take the image back, and those below it first."""
    for each in reversed(sorted_below([node])):
        if not each.active:
            async with graph.drained([each]), Transaction() as tran:
                each.active = True
                tran.add(abort=partial(setattr, each, "active", False))
                _wake_roots(graph, each, tran)
                await refresh([each], tran)
                await each.driver.set_active(True)


async def _inactivate_one(graph: Graph, node: Node) -> None:
    if any(parent.active for parent in parent_nodes(node)):
        raise Busy("Node has active parent node")
    try:
        await _inactivate(graph, [node])
    except BlockyardError as error:
        raise from_errno(getattr(error, "errno", _EPERM), "Failed to inactivate node") from error


async def _inactivate_all(graph: Graph) -> None:
    tops = [node for node in graph.nodes.values() if not parent_nodes(node)]
    try:
        await _inactivate(graph, tops)
    except BlockyardError as error:
        raise from_errno(
            getattr(error, "errno", _EPERM), "Failed to inactivate all nodes"
        ) from error


async def _inactivate(graph: Graph, starts: list[Node]) -> None:
    affected = sorted_below(starts)
    async with graph.drained(affected), Transaction() as tran:
        for node in affected:
            if node.active and not any(p.active for p in parent_nodes(node)):
                await _sleep(graph, node, tran)
        await refresh(affected, tran)


async def _sleep(graph: Graph, node: Node, tran: Transaction) -> None:
    """One node, its parents asleep already; its children's turn comes."""
    _lull_roots(graph, node, tran)
    perm, shared = cumulative(node.parents)
    if perm & _WRITES:
        raise from_errno(_EPERM)
    for bitmap in bitmaps.persistent(node):
        bitmap.check(Check.BUSY)
    if node.writable:
        await graph.carrier.flush(node)
    await node.driver.set_active(False)
    tran.add(abort=lambda: node.driver.set_active(True))
    node.active = False
    tran.add(abort=partial(setattr, node, "active", True))
    for child in node.children.values():
        ask(child, *child.permissions_below(perm, shared), tran)


def _lull_roots(graph: Graph, node: Node, tran: Transaction) -> None:
    for root in node.parents:
        if isinstance(root, Root) and root.allow_inactive and root.awake is None:
            root.awake = (root.perm, root.shared)
            tran.add(abort=partial(setattr, root, "awake", None))
            ask(root, NONE, ALL, tran)
            tran.add(commit=partial(graph.apply_rights, root))


def _wake_roots(graph: Graph, node: Node, tran: Transaction) -> None:
    for root in node.parents:
        if isinstance(root, Root) and root.awake is not None:
            held, root.awake = root.awake, None
            tran.add(abort=partial(setattr, root, "awake", held))
            ask(root, *held, tran)
            tran.add(commit=partial(graph.apply_rights, root))
