# SPDX-License-Identifier: Apache-2.0
"""Opening a node with all its children: those of its options, and those of its image.

First what the options define is planned, parents before children, because a child
inherits options.  Then each node is opened: its file, by which the driver reads
the header; what the header names; then the node.  Nothing of it recurses: depth is
the user's, and an image's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.changes.planning import Plan, child_plan, plan_tree
from blockyard.changes.refresh import initial, refresh
from blockyard.changes.topology import check_new_edge, depth_below
from blockyard.changes.transaction import Transaction
from blockyard.errors import BlockyardError, InvalidOption
from blockyard.identifier import identifier_ok
from blockyard.node import Child, Node

if TYPE_CHECKING:
    from blockyard.changes.backing import Steps
    from blockyard.graph import Graph

__all__ = [
    "child_slots",
    "link",
    "open_plan",
    "open_tree",
    "unlink",
]

_NAME_LIMIT = 31


async def open_tree(graph: Graph, options: Any) -> Node:
    """Open the node that ``options`` define, and its children.

    On failure nothing is left of it.

    :raises BlockyardError: whatever refuses it.
    """
    return await open_plan(graph, plan_tree(graph, options))


async def open_plan(graph: Graph, top: Plan) -> Node:
    """:func:`open_tree`, of what is planned already."""
    stack = [_steps(graph, top)]
    failure: BaseException | None = None
    while stack:
        try:
            below = await (stack[-1].athrow(failure) if failure else anext(stack[-1]))
        except StopAsyncIteration:
            stack.pop()
            failure = None
        except BaseException as error:
            stack.pop()
            failure = error
        else:
            stack.append(_steps(graph, below) if isinstance(below, Plan) else below)
            failure = None
    if failure is not None:
        raise failure
    return top.node


async def _steps(graph: Graph, plan: Plan) -> Steps:
    node = plan.node
    # QEMU's order: the file first, then what is wrong with the node itself.
    file = plan.children.get("file")
    if isinstance(file, Plan):
        yield file
    try:
        if file is not None:
            _found(graph, file)
        plan.flags.check()
        _name(graph, node)
    except BaseException:
        await _drop(graph, file)
        raise
    graph.register(node)
    try:
        if file is not None:
            await _attach(graph, plan, "file")
        for name, value in (await node.driver.named_children()).items():
            if not plan.mentions(name):
                plan.children[name] = child_plan(graph, plan, name, value)
        for name in plan.in_order():
            target = plan.children[name]
            try:
                if isinstance(target, Plan):
                    yield target
                _found(graph, target)
            except BlockyardError as error:
                raise _said_of(name, error) from None
            await _attach(graph, plan, name)
        if node.backing_file and plan.backing and not plan.mentions("backing"):
            from blockyard.changes import backing

            yield backing.steps(graph, plan)
            await _attach(graph, plan, "backing")
        await _open(graph, node)
    except BaseException:
        await graph.unregister(node)
        raise


def _said_of(name: str, error: BlockyardError) -> BlockyardError:
    """The error of a child that cannot be opened, as its parent's user is told of it."""
    if name != "backing":
        return error
    from blockyard.changes import backing

    return backing.failure(error)


async def _open(graph: Graph, node: Node) -> None:
    opened = await node.driver.open_native()
    try:
        node.limits = opened.limits
        graph.carrier.create(node, opened, child_slots(node), graph.home_for(node))
        graph.follow_children(node)
    except BaseException:
        await node.driver.close_native()
        raise


def _found(graph: Graph, target: Plan | str) -> Node:
    return graph.lookup_child(target) if isinstance(target, str) else target.node


async def _drop(graph: Graph, target: Plan | str | None) -> None:
    """End a child that was opened for a parent that cannot be."""
    if isinstance(target, Plan):
        await graph.release(target.node)


async def _attach(graph: Graph, plan: Plan, name: str) -> None:
    """Make the edge to a child that is open, with the permissions it brings.

    :raises InvalidOption: if there is no such node, or the path would be too long.
    :raises PermissionConflict: if another user of the child is in the way.
    """
    target, parent = plan.children[name], plan.node
    try:
        node = _found(graph, target)
        height = target.height if isinstance(target, Plan) else depth_below(node)
        check_new_edge(parent, name, node, plan.depth + height)
        child = Child(name=name, role=plan.role_of(name), parent=parent, node=node)
        async with Transaction() as tran:
            link(child)
            tran.add(abort=lambda: unlink(child))
            child.perm, child.shared = initial(child)
            await refresh([node], tran)
    except BaseException:
        await _drop(graph, target)
        raise
    plan.height = max(plan.height, height + 1)


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
