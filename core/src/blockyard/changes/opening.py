# SPDX-License-Identifier: Apache-2.0
"""Opening a node with all the children that its options define inline.

First everything is planned, parents before children, because a child inherits
options; then everything is opened, children before parents, because a driver's
``open`` reads its children.  Nothing of it recurses: depth is the user's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard.changes.refresh import initial, refresh
from blockyard.changes.topology import MAX_DEPTH, check_edge
from blockyard.changes.transaction import Transaction
from blockyard.entrypoints import implementation
from blockyard.errors import InvalidOption
from blockyard.flags import Flags, resolve
from blockyard.identifier import identifier_ok
from blockyard.node import Child, ChildSpec, Node
from blockyard.permission import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockyard.graph import Graph

__all__ = [
    "attach_child",
    "child_slots",
    "link",
    "open_tree",
    "unlink",
]

_NAME_LIMIT = 31


@attrs.define(eq=False, repr=False)
class _Plan:
    """A node to be opened, and what its children will be."""

    node: Node
    flags: Flags
    depth: int
    #: Child name, role, and either a plan or the name of an existing node.
    children: list[tuple[str, Role, _Plan | str]] = attrs.field(factory=list)


async def open_tree(
    graph: Graph, options: Any, parent: Node | None = None, role: Role = Role.IMAGE
) -> Node:
    """Open the node that ``options`` define, and its inline children.

    With ``parent`` it inherits from it.  On failure nothing is left of it.

    :raises BlockyardError: whatever refuses it.
    """
    top = _plan_tree(graph, options, parent, role)
    opened: list[Node] = []
    try:
        for plan in _children_first(top):
            await _open(graph, plan)
            opened.append(plan.node)
    except BaseException:
        await graph.discard(opened[::-1])
        raise
    return top.node


# -- planning


def _plan_tree(graph: Graph, options: Any, parent: Node | None, role: Role) -> _Plan:
    inherited = parent.flags if parent else None
    top = _plan(graph, options, inherited, role, 1)
    top.node.inherits_from = parent
    waiting = [top]
    while waiting:
        plan = waiting.pop()
        for spec, name, value in _child_values(plan.node):
            child_role = plan.node.driver.child_role(spec)
            if isinstance(value, str):
                plan.children.append((name, child_role, value))
                continue
            flags = _handed_down(plan.flags, name)
            below = _plan(graph, value, flags, child_role, plan.depth + 1)
            below.node.inherits_from = plan.node
            plan.children.append((name, child_role, below))
            waiting.append(below)
    return top


def _handed_down(flags: Flags, name: str) -> Flags:
    # A file is opened to look at it, and so is active even under an inactive format.
    return attrs.evolve(flags, active=True) if name == "file" else flags


def _plan(graph: Graph, options: Any, parent: Flags | None, role: Role, depth: int) -> _Plan:
    if depth > MAX_DEPTH:
        raise InvalidOption(f"Block nodes are nested deeper than {MAX_DEPTH}")
    flags = resolve(options, parent, role)
    declaration = graph.registry.driver(options.driver)
    node = Node(
        name=options.node_name or "", type=declaration, graph=graph, options=options, flags=flags
    )
    node.take_flags(flags)
    node.driver = implementation(declaration)(options.u, node)
    return _Plan(node, flags, depth)


def _child_values(node: Node) -> Iterator[tuple[ChildSpec, str, Any]]:
    """Declared children that the options give: spec, child name, reference or definition."""
    for spec in node.type.children:
        value = getattr(node.options.u, spec.name.replace("-", "_"), None)
        if spec.many:
            for index, item in enumerate(value or ()):
                yield spec, f"{spec.name}.{index}", item
        elif isinstance(value, str) or hasattr(value, "driver"):
            yield spec, spec.name, value


def _children_first(top: _Plan) -> list[_Plan]:
    order, waiting = [], [top]
    while waiting:
        plan = waiting.pop()
        order.append(plan)
        waiting += [target for _, _, target in plan.children if isinstance(target, _Plan)]
    return order[::-1]


# -- opening


async def _open(graph: Graph, plan: _Plan) -> None:
    node = plan.node
    # QEMU's order: the file first, then what is wrong with the node itself.
    known = {
        name: graph.lookup_child(target)
        for name, _, target in plan.children
        if name == "file" and isinstance(target, str)
    }
    plan.flags.check()
    _name(graph, node)
    graph.register(node)
    try:
        for name, role, target in plan.children:
            await attach_child(graph, node, name, role, known.get(name) or _found(graph, target))
        opened = await node.driver.open_native()
    except BaseException:
        await graph.unregister(node)
        raise
    try:
        node.limits = opened.limits
        graph.carrier.create(node, opened, child_slots(node), graph.home_for(node))
        graph.follow_children(node)
    except BaseException:
        await node.driver.close_native()
        await graph.unregister(node)
        raise


def _found(graph: Graph, target: _Plan | str) -> Node:
    return graph.lookup_child(target) if isinstance(target, str) else target.node


async def attach_child(graph: Graph, parent: Node, name: str, role: Role, node: Node) -> Child:
    """Make the edge of a parent that is being opened, with the permissions it brings.

    :raises InvalidOption: if it would make a cycle or a path too long.
    :raises PermissionConflict: if another user of ``node`` is in the way.
    """
    check_edge(parent, name, node)
    child = Child(name=name, role=role, parent=parent, node=node)
    async with Transaction() as tran:
        link(child)
        tran.add(abort=lambda: unlink(child))
        child.perm, child.shared = initial(child)
        await refresh([node], tran)
    return child


def link(child: Child) -> None:
    """Put an edge into both its ends' books."""
    child.parent.children[child.name] = child
    child.node.parents.insert(0, child)


def unlink(child: Child) -> None:
    """The reverse of :func:`link`."""
    del child.parent.children[child.name]
    child.node.parents.remove(child)


def child_slots(node: Node) -> list[str]:
    """The names of the native slots: the declared children, absent ones too, in order."""
    slots: list[str] = []
    for spec in node.type.children:
        if spec.many:
            slots += [name for name in node.children if name.startswith(f"{spec.name}.")]
        else:
            slots.append(spec.name)
    return slots


# -- names


def _name(graph: Graph, node: Node) -> None:
    name = node.options.node_name
    if name is None:
        node.name = graph.generated_name()
        return
    if not identifier_ok(name):
        raise InvalidOption(f"Invalid node-name: '{name}'")
    if name in graph.nodes:
        raise InvalidOption(f"Duplicate nodes with node-name='{name}'")
    if len(name.encode()) > _NAME_LIMIT:
        raise InvalidOption("Node name too long")
    node.name = name
