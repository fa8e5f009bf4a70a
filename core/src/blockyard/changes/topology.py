# SPDX-License-Identifier: Apache-2.0
"""Questions about the shape of the graph.  Iterative throughout: depth is data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.errors import InvalidOption
from blockyard.node import Child, Node
from blockyard.permission import Role
from blockyard.root import Root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "MAX_DEPTH",
    "above",
    "backing_below",
    "check_edge",
    "check_new_edge",
    "connected",
    "depth_below",
    "parent_nodes",
    "reaches",
    "roots_of",
    "sorted_below",
]

#: Nodes on one path from a root down.  A request's way down is C stack.
MAX_DEPTH = 200


def sorted_below(starts: Iterable[Node]) -> list[Node]:
    """The nodes and everything below them, every parent before its children."""
    order: list[Node] = []
    seen: set[Node] = set()
    for start in starts:
        stack: list[tuple[Node, Iterator[Node]]] = []
        _push(start, stack, seen)
        while stack:
            node, children = stack[-1]
            child = next(children, None)
            if child is None:
                order.append(node)
                stack.pop()
            else:
                _push(child, stack, seen)
    return order[::-1]


def _push(node: Node, stack: list[tuple[Node, Iterator[Node]]], seen: set[Node]) -> None:
    if node not in seen:
        seen.add(node)
        stack.append((node, iter([child.node for child in node.children.values()])))


def parent_nodes(node: Node) -> list[Node]:
    """The nodes that use ``node`` as a child."""
    return [user.parent for user in node.parents if isinstance(user, Child)]


def above(starts: Iterable[Node]) -> list[Node]:
    """The nodes and everything that reaches them."""
    return _closure(starts, parent_nodes)


def connected(start: Node) -> list[Node]:
    """All nodes connected with ``start``, up and down."""

    def neighbours(node: Node) -> list[Node]:
        return [*parent_nodes(node), *(child.node for child in node.children.values())]

    return _closure([start], neighbours)


def _closure(starts: Iterable[Node], neighbours: Callable[[Node], list[Node]]) -> list[Node]:
    found: dict[Node, None] = {}
    waiting = list(starts)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found[node] = None
            waiting += neighbours(node)
    return list(found)


def backing_below(node: Node) -> Iterator[Node]:
    """The chain below ``node``: what filters show, and backing files; the next first."""
    while True:
        wanted = Role.FILTERED if node.type.kind == "filter" else Role.COW
        child = next((c for c in node.children.values() if c.role & wanted), None)
        if child is None:
            return
        node = child.node
        yield node


def roots_of(nodes: Iterable[Node]) -> list[Root]:
    """The roots that sit on these nodes."""
    return [user for node in nodes for user in node.parents if isinstance(user, Root)]


def reaches(start: Node, goal: Node) -> bool:
    """Whether ``goal`` is ``start`` or below it."""
    return goal in sorted_below([start])


def depth_below(node: Node) -> int:
    """Nodes on the longest path from ``node`` down, itself included."""
    depth: dict[Node, int] = {}
    for each in reversed(sorted_below([node])):
        depth[each] = 1 + max((depth[c.node] for c in each.children.values()), default=0)
    return depth[node]


def _depth_above(node: Node) -> int:
    depth: dict[Node, int] = {}
    for each in sorted_below(_tops(node)):
        depth[each] = 1 + max((depth[p] for p in parent_nodes(each) if p in depth), default=0)
    return depth[node]


def _tops(node: Node) -> list[Node]:
    return [each for each in above([node]) if not parent_nodes(each)]


def check_edge(parent: Node, name: str, child: Node) -> None:
    """Refuse an edge that would make a cycle, a path too long, or sleep under the waking.

    :raises InvalidOption: saying which.
    """
    if reaches(child, parent):
        raise InvalidOption(
            f"Making '{child.name}' a {name} child of '{parent.name}' would create a cycle"
        )
    check_new_edge(parent, name, child, _depth_above(parent) + depth_below(child))


def check_new_edge(parent: Node, name: str, child: Node, depth: int) -> None:
    """:func:`check_edge` of a parent that nothing can reach yet; ``depth`` is known.

    It counts the nodes of the longest path through the edge.
    """
    if parent.active and not child.active:
        raise InvalidOption(
            f"Inactive '{child.name}' can't be a {name} child of active '{parent.name}'"
        )
    if depth > MAX_DEPTH:
        raise InvalidOption(
            f"Making '{child.name}' a {name} child of '{parent.name}' would make the graph "
            f"deeper than {MAX_DEPTH} nodes"
        )
