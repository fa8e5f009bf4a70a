# SPDX-License-Identifier: Apache-2.0
"""query-block, query-named-block-nodes, query-blockstats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.imageinfo import Images
from blockyard.info import block_stats, device_info
from blockyard.qmp.command import command
from blockyard.schema.blockinfo import BlockDeviceInfo, BlockInfo
from blockyard.schema.blockstats import BlockStats
from blockyard.schema.declare import struct

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["query_block", "query_blockstats", "query_named_block_nodes"]


@struct
class QueryBlockArguments:
    """What query-block and query-named-block-nodes take.

    flat: leave the backing chain out of each node's information (false).
    """

    flat: bool | None = None


@struct
class QueryBlockstatsArguments:
    """What query-blockstats takes.

    query-nodes: tell of all nodes rather than of devices, of which there are none (false).
    """

    query_nodes: bool | None = None


@command("query-block", args=QueryBlockArguments, returns=list[BlockInfo])
async def query_block(yard: Yard, args: QueryBlockArguments) -> list[Any]:
    """The guest's block devices: none, there is no guest."""
    return []


@command("query-named-block-nodes", args=QueryBlockArguments, returns=list[BlockDeviceInfo])
async def query_named_block_nodes(yard: Yard, args: QueryBlockArguments) -> list[Any]:
    """All nodes, the newest first."""
    images, nodes = Images(), reversed(list(yard.graph.nodes.values()))
    return [await device_info(yard.graph, node, images, flat=bool(args.flat)) for node in nodes]


@command("query-blockstats", args=QueryBlockstatsArguments, returns=list[BlockStats])
async def query_blockstats(yard: Yard, args: QueryBlockstatsArguments) -> list[Any]:
    """What nodes have carried, the oldest first."""
    if not args.query_nodes:
        return []
    return [block_stats(yard.graph, node) for node in yard.graph.nodes.values()]
