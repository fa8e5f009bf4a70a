# SPDX-License-Identifier: Apache-2.0
"""Replacing nodes under their users, and inserting nodes between.

An edge's new target is visible to permissions at once and to requests at commit,
all inside a drained section, so that no request is lost or sees half a change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.changes.opening import child_slots, link, open_tree, unlink
from blockyard.changes.refresh import refresh
from blockyard.changes.topology import check_edge
from blockyard.changes.transaction import Transaction
from blockyard.errors import Busy, InvalidOption
from blockyard.node import Child, Node
from blockyard.root import Root

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blockyard.graph import Graph
    from blockyard.permission import User

__all__ = ["attach", "detach", "insert_above", "replace_node", "retarget"]


async def replace_node(graph: Graph, old: Node, new: Node, *, keep: Iterable[Node] = ()) -> None:
    """Let ``new`` take the place of ``old`` under all its users but the nodes in ``keep``.

    ``old`` ends if that was its last use.

    :raises InvalidOption: if that would make a cycle.
    :raises PermissionConflict: if the users cannot share ``new``.
    """
    kept = {new, *keep}
    moving = [u for u in old.parents if not (isinstance(u, Child) and u.parent in kept)]
    async with graph.drained([old, new]), Transaction() as tran:
        for user in moving:
            retarget(graph, user, new, tran)
        # The parents too: what an edge carries depends on the node it leads to.
        parents = [user.parent for user in moving if isinstance(user, Child)]
        await refresh([*parents, old, new], tran)
    await graph.release(old)


async def insert_above(graph: Graph, node: Node, options: Any, child: str) -> Node:
    """Open a node whose ``child`` is ``node`` and put it between ``node`` and its users.

    On failure the new node is gone again.
    """
    new = await open_tree(graph, options)
    try:
        if child not in new.children or new.children[child].node is not node:
            raise InvalidOption(f"Node '{new.name}' does not have '{node.name}' as '{child}'")
        # Nobody owns it until its users arrive; permissions see them as they are.
        new.monitor_owned = True
        await replace_node(graph, node, new)
    except BaseException:
        new.monitor_owned = False
        await graph.release(new)
        raise
    return new


def retarget(graph: Graph, user: User, new: Node, tran: Transaction) -> None:
    """Point an edge or a root at another node.  Drained; permissions are not looked at.

    :raises InvalidOption: if an edge would make a cycle.
    :raises Busy: if the edge is frozen.
    """
    assert isinstance(user, Child | Root)
    old = user.node
    if isinstance(user, Child):
        _check_frozen(user)
        check_edge(user.parent, user.name, new)
    _move(user, old, new)
    tran.add(abort=lambda: _move(user, new, old), commit=lambda: _tell(graph, user))


def attach(graph: Graph, parent: Node, child: Child, tran: Transaction) -> None:
    """Give an open node a child that it did not have.  Drained.

    :raises InvalidOption: if that would make a cycle.
    """
    check_edge(parent, child.name, child.node)
    link(child)
    tran.add(abort=lambda: unlink(child), commit=lambda: _tell(graph, child))


def detach(graph: Graph, child: Child, tran: Transaction) -> None:
    """Take a child from an open node.  Drained.

    :raises Busy: if the edge is frozen.
    """
    _check_frozen(child)
    children, order = child.parent.children, list(child.parent.children)
    unlink(child)

    def undo() -> None:
        link(child)
        for name in order:
            children[name] = children.pop(name)

    tran.add(abort=undo, commit=lambda: _tell(graph, child))


def _check_frozen(edge: Child) -> None:
    if edge.frozen:
        raise Busy(
            f"Cannot change frozen '{edge.name}' link "
            f"from '{edge.parent.name}' to '{edge.node.name}'"
        )


def _move(user: Child | Root, old: Node, new: Node) -> None:
    old.parents.remove(user)
    new.parents.insert(0, user)
    user.node = new


def _tell(graph: Graph, user: Child | Root) -> None:
    if isinstance(user, Root):
        graph.carrier.set_root_node(user.native, user.node)
        return
    slots = child_slots(user.parent)
    if any(spec.many for spec in user.parent.type.children):
        graph.carrier.set_children(user.parent, slots)
    elif user.name in slots:
        graph.carrier.set_child(user.parent, slots.index(user.name), user.name)
    graph.follow_children(user.parent)
    graph.length_changed(user.node)
