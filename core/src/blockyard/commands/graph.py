# SPDX-License-Identifier: Apache-2.0
"""x-debug-query-block-graph and x-blockdev-set-iothread."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from blockyard.changes.topology import roots_of
from blockyard.errors import Busy
from blockyard.job import Job
from blockyard.permission import Perm, qapi_names
from blockyard.qmp.command import command
from blockyard.schema.block import StrOrNull
from blockyard.schema.blockgraph import XDbgBlockGraph
from blockyard.schema.declare import struct

if TYPE_CHECKING:
    from blockyard.node import Child
    from blockyard.root import Root
    from blockyard.yard import Yard

__all__ = ["x_blockdev_set_iothread", "x_debug_query_block_graph"]


@struct
class XBlockdevSetIothreadArguments:
    """What x-blockdev-set-iothread takes.

    node-name: the node to move, with all that is connected with it.
    iothread: the iothread, or null for the main loop.
    force: move it even though an export or job uses it (false).
    """

    node_name: str
    iothread: StrOrNull
    force: bool | None = None


@command("x-blockdev-set-iothread", args=XBlockdevSetIothreadArguments, features=("unstable",))
async def x_blockdev_set_iothread(yard: Yard, args: XBlockdevSetIothreadArguments) -> None:
    """Let another loop serve a node."""
    node = yard.graph.find(args.node_name)
    if not args.force and roots_of([node]):
        raise Busy(
            f"Node {node.name} is associated with a BlockBackend and could be in use "
            "(use force=true to override this check)"
        )
    named = isinstance(args.iothread, str)
    home = yard.loops.get(args.iothread) if named else yard.loops.main
    await yard.graph.move(node, home)


@command("x-debug-query-block-graph", returns=XDbgBlockGraph, features=("unstable",))
async def x_debug_query_block_graph(yard: Yard, args: None) -> dict[str, Any]:
    """All nodes and their users, with the permissions of every edge."""
    numbers: dict[object, int] = {}
    counter = itertools.count(1)
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []

    def number(thing: object) -> int:
        if thing not in numbers:
            numbers[thing] = next(counter)
        return numbers[thing]

    for root in yard.graph.roots():
        nodes.append({"id": number(root), **_root(root)})
        edges.append(_edge(number(root), number(root.node), root))
    for node in reversed(list(yard.graph.nodes.values())):
        nodes.append({"id": number(node), "type": "block-driver", "name": node.name})
        edges += [_edge(number(node), number(c.node), c) for c in node.children.values()]
    return {"nodes": nodes, "edges": edges}


def _root(root: Root) -> dict[str, str]:
    if isinstance(root.owner, Job):
        return {"type": "block-job", "name": root.owner.id}
    return {"type": "block-backend", "name": ""}


def _edge(parent: int, child: int, user: Root | Child) -> dict[str, Any]:
    return {
        "parent": parent,
        "child": child,
        "name": user.name,
        "perm": _names(user.perm),
        "shared-perm": _names(user.shared),
    }


def _names(perm: Perm) -> list[str]:
    return qapi_names(perm)[::-1]
