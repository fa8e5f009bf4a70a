# SPDX-License-Identifier: Apache-2.0
"""What x-debug-query-block-graph tells."""

from __future__ import annotations

from blockyard.schema.declare import QEnum, Uint64, enum, struct

__all__ = [
    "BlockPermission",
    "XDbgBlockGraph",
    "XDbgBlockGraphEdge",
    "XDbgBlockGraphNode",
    "XDbgBlockGraphNodeType",
]


@enum
class XDbgBlockGraphNodeType(QEnum):
    """Kinds of point in the graph."""

    BLOCK_BACKEND = "block-backend"
    BLOCK_JOB = "block-job"
    BLOCK_DRIVER = "block-driver"


@struct
class XDbgBlockGraphNode:
    """A point.

    id: its number in this answer.
    type: its kind.
    name: its name; empty when it has none.
    """

    id: Uint64
    type: XDbgBlockGraphNodeType
    name: str


@enum
class BlockPermission(QEnum):
    """What a user of a node may do."""

    CONSISTENT_READ = "consistent-read"
    WRITE = "write"
    WRITE_UNCHANGED = "write-unchanged"
    RESIZE = "resize"


@struct
class XDbgBlockGraphEdge:
    """An edge.

    parent: the number of the user.
    child: the number of the used.
    name: the edge's name.
    perm: what the parent may do.
    shared-perm: what others may do.
    """

    parent: Uint64
    child: Uint64
    name: str
    perm: list[BlockPermission]
    shared_perm: list[BlockPermission]


@struct
class XDbgBlockGraph:
    """The block graph: points and edges."""

    nodes: list[XDbgBlockGraphNode]
    edges: list[XDbgBlockGraphEdge]
