# SPDX-License-Identifier: Apache-2.0
"""block_resize."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.qmp.command import command
from blockyard.schema.declare import struct

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["block_resize"]


@struct
class BlockResizeArguments:
    """What block_resize takes.

    device: a device's name; there are no devices here.
    node-name: the node.
    size: its new length in bytes.
    """

    device: str | None = None
    node_name: str | None = None
    size: int


@command("block_resize", args=BlockResizeArguments)
async def block_resize(yard: Yard, args: BlockResizeArguments) -> None:
    """Change the length of a node that nobody forbids to resize."""
    node = yard.graph.lookup(args.node_name, args.device)
    await yard.graph.resize(node, args.size)
