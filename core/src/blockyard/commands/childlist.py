# SPDX-License-Identifier: Apache-2.0
"""x-blockdev-change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.errors import InvalidOption, NotFound
from blockyard.qmp.command import command
from blockyard.schema.declare import struct

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["x_blockdev_change"]


@struct
class XBlockdevChangeArguments:
    """What x-blockdev-change takes: a child, or a node.

    parent: the node whose list of children changes.
    child: the name of the child to remove.
    node: the node to add as the last child.
    """

    parent: str
    child: str | None = None
    node: str | None = None


@command("x-blockdev-change", args=XBlockdevChangeArguments, features=("unstable",))
async def x_blockdev_change(yard: Yard, args: XBlockdevChangeArguments) -> None:
    """Add a child to a node, or remove one."""
    graph = yard.graph
    parent = graph.lookup(args.parent, device=args.parent)
    if (args.child is None) == (args.node is None):
        if args.child is None:
            raise InvalidOption("Either child or node must be specified")
        raise InvalidOption("The parameters child and node are in conflict")
    if args.child is not None:
        await graph.remove_child(parent, args.child)
        return
    if args.node not in graph.nodes:
        raise NotFound(f"Node '{args.node}' not found")
    await graph.add_child(parent, graph.nodes[args.node])
