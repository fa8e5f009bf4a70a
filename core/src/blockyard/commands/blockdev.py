# SPDX-License-Identifier: Apache-2.0
"""blockdev-add, -del, -reopen and -set-active."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.errors import InvalidOption
from blockyard.qmp.command import command
from blockyard.schema.block import BlockdevOptions
from blockyard.schema.declare import struct

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["blockdev_add", "blockdev_del", "blockdev_reopen", "blockdev_set_active"]


@struct
class BlockdevDelArguments:
    """What blockdev-del takes.

    node-name: the node to end; blockdev-add made it and nobody uses it.
    """

    node_name: str


@struct
class BlockdevReopenArguments:
    """What blockdev-reopen takes.

    options: the nodes to change, each with all its options; all change or none.
    """

    options: list[BlockdevOptions]


@struct
class BlockdevSetActiveArguments:
    """What blockdev-set-active takes.

    node-name: the node; all nodes if it is left out.
    active: whether the image is used (true), or let go for another process (false).
    """

    node_name: str | None = None
    active: bool


@command("blockdev-add", args=BlockdevOptions)
async def blockdev_add(yard: Yard, args: BlockdevOptions) -> None:
    """Open a node, and those that its options define inside."""
    if args.node_name is None:
        raise InvalidOption("'node-name' must be specified for the root node")
    await yard.graph.add(args)


@command("blockdev-del", args=BlockdevDelArguments)
async def blockdev_del(yard: Yard, args: BlockdevDelArguments) -> None:
    """End a node that nobody uses."""
    await yard.graph.delete(args.node_name)


@command("blockdev-reopen", args=BlockdevReopenArguments)
async def blockdev_reopen(yard: Yard, args: BlockdevReopenArguments) -> None:
    """Give nodes new options, all of them or none."""
    await yard.graph.reopen(args.options)


@command("blockdev-set-active", args=BlockdevSetActiveArguments)
async def blockdev_set_active(yard: Yard, args: BlockdevSetActiveArguments) -> None:
    """Take images over from another process, or hand them over."""
    node = None if args.node_name is None else yard.graph.find(args.node_name)
    await yard.graph.set_active(node, args.active)
