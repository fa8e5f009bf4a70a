# SPDX-License-Identifier: Apache-2.0
"""What is going to be opened: nodes that are made, with their flags, and not open yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard.changes.topology import MAX_DEPTH
from blockyard.entrypoints import implementation
from blockyard.errors import InvalidOption
from blockyard.flags import Flags, resolve
from blockyard.node import ChildSpec, Node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockyard.graph import Graph
    from blockyard.naming import Names
    from blockyard.permission import Role

__all__ = ["Plan", "child_plan", "handed_down", "make_plan", "plan_tree"]


@attrs.define(eq=False, repr=False)
class Plan:
    """A node to be opened, and what its children will be."""

    node: Node
    flags: Flags
    #: Nodes on the way from the top, this one included; and on the longest way down
    #: from here, as far as is known.
    depth: int
    height: int = 1
    #: By the child's name: a plan, or the name of an existing node.
    children: dict[str, Plan | str] = attrs.field(factory=dict)
    #: The plan of the node that this one is opened for.
    parent: Plan | None = None
    #: The names of the nodes opened so far for the same top.
    names: dict[Node, Names] = attrs.field(factory=dict)
    #: False: the backing file that the image records stays closed.
    backing: bool = True
    #: What the options say of the backing file that the image records, flat.
    backing_options: dict[str, Any] = attrs.field(factory=dict)

    def mentions(self, name: str) -> bool:
        """Whether the options say of a child what it is, or that there is none."""
        attribute = name.replace("-", "_")
        return name in self.children or getattr(self.node.options.u, attribute, None) is not None

    def role_of(self, name: str) -> Role:
        """What a child is to the node."""
        return self.node.driver.child_role(spec_of(self.node, name))

    def in_order(self) -> list[str]:
        """The children that are not attached yet, in the order of the declaration."""
        order = {spec.name: place for place, spec in enumerate(self.node.type.children)}
        left = [name for name in self.children if name not in self.node.children]
        return sorted(left, key=lambda name: order[spec_of(self.node, name).name])


def spec_of(node: Node, name: str) -> ChildSpec:
    """The declaration of a child.

    :raises InvalidOption: if there is none of that name.
    """
    for spec in node.type.children:
        if name == spec.name or (spec.many and name.startswith(f"{spec.name}.")):
            return spec
    raise InvalidOption(f"Driver '{node.type.name}' has no child '{name}'")


def plan_tree(graph: Graph, options: Any, parent: Plan | None = None, name: str = "") -> Plan:
    """The plan of a node and of the children that its options define inline.

    ``parent`` hands down to it, under ``name``.
    """
    top = make_plan(graph, options, parent, name)
    waiting = [top]
    while waiting:
        plan = waiting.pop()
        for child, value in _child_values(plan.node):
            if isinstance(value, str):
                plan.children[child] = value
            else:
                below = plan.children[child] = make_plan(graph, value, plan, child)
                waiting.append(below)
    return top


def child_plan(graph: Graph, parent: Plan, name: str, value: Any) -> Plan | str:
    """What an image names as a child: another node's name, or options as blockdev-add's."""
    from blockyard.schema import visit
    from blockyard.schema.block import BlockdevOptions

    if isinstance(value, str):
        return value
    options = visit(BlockdevOptions, value) if isinstance(value, dict) else value
    return plan_tree(graph, options, parent, name)


def handed_down(plan: Plan, name: str) -> Flags:
    """What a child of that name inherits from."""
    # A file is opened to look at it, and so is active even under an inactive format.
    return attrs.evolve(plan.flags, active=True) if name == "file" else plan.flags


def make_plan(graph: Graph, options: Any, parent: Plan | None, name: str) -> Plan:
    """The plan of one node.

    :raises InvalidOption: if it lies too deep.
    """
    depth = parent.depth + 1 if parent else 1
    if depth > MAX_DEPTH:
        raise InvalidOption(f"Block nodes are nested deeper than {MAX_DEPTH}")
    if parent:
        flags = resolve(options, handed_down(parent, name), parent.role_of(name))
    else:
        flags = resolve(options)
    declaration = graph.registry.driver(options.driver)
    node = Node(
        name=options.node_name or "", type=declaration, graph=graph, options=options, flags=flags
    )
    node.take_flags(flags)
    node.driver = implementation(declaration)(options.u, node)
    node.inherits_from = parent.node if parent else None
    return Plan(node, flags, depth=depth, parent=parent, names=parent.names if parent else {})


def _child_values(node: Node) -> Iterator[tuple[str, Any]]:
    """Declared children that the options give: child name, reference or definition."""
    for spec in node.type.children:
        value = getattr(node.options.u, spec.name.replace("-", "_"), None)
        if spec.many:
            for index, item in enumerate(value or ()):
                yield f"{spec.name}.{index}", item
        elif isinstance(value, str) or hasattr(value, "driver"):
            yield spec.name, value
