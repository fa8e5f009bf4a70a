# SPDX-License-Identifier: Apache-2.0
"""Adding children to open nodes, and removing them, where the driver has a list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.changes.opening import child_slots
from blockyard.changes.planning import spec_of
from blockyard.changes.refresh import initial, refresh
from blockyard.changes.replace import attach, detach
from blockyard.changes.transaction import Transaction
from blockyard.errors import Busy, NotFound, Unsupported
from blockyard.node import Child

if TYPE_CHECKING:
    from blockyard.graph import Graph
    from blockyard.node import Node

__all__ = ["add_child", "remove_child"]


async def add_child(graph: Graph, parent: Node, node: Node) -> None:
    """Make ``node``, which nobody uses, the last child of ``parent``.

    :raises Unsupported: if the parent's driver has no list that may change.
    :raises Busy: if somebody uses the node.
    :raises BlockyardError: whatever else is in the way; nothing has changed.
    """
    if not parent.driver.list_changes:
        raise Unsupported(f"The node {parent.name} does not support adding a child")
    if node.parents:
        raise Busy(f"The node {node.name} already has a parent")
    name = parent.driver.new_child_name(node)
    role = parent.driver.child_role(spec_of(parent, name))
    child = Child(name=name, role=role, parent=parent, node=node)
    async with graph.drained([parent, node]), Transaction() as tran:
        tran.add(abort=lambda: graph.carrier.set_children(parent, child_slots(parent)))
        attach(graph, parent, child, tran)
        tran.add(commit=lambda: parent.driver.child_list_changed(name, None))
        child.perm, child.shared = initial(child)
        await refresh([parent, node], tran)
        graph.carrier.make_slots(parent, len(child_slots(parent)))


async def remove_child(graph: Graph, parent: Node, name: str) -> None:
    """Take the child of that name from ``parent``; its node ends if that was its last use.

    :raises NotFound: if there is no such child.
    :raises Unsupported: if the parent's driver has no list that may change.
    :raises BlockyardError: whatever else is in the way; nothing has changed.
    """
    if name not in parent.children:
        raise NotFound(f"Node '{parent.name}' does not have child '{name}'")
    if not parent.driver.list_changes:
        raise Unsupported(f"The node {parent.name} does not support removing a child")
    child = parent.children[name]
    parent.driver.check_child_leaves(child)
    async with graph.drained([parent, child.node]), Transaction() as tran:
        detach(graph, child, tran)
        tran.add(commit=lambda: parent.driver.child_list_changed(None, name))
        await refresh([parent, child.node], tran)
    await graph.release(child.node)
