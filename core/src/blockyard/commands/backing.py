# SPDX-License-Identifier: Apache-2.0
"""change-backing-file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.changes.reopen import change_options
from blockyard.changes.topology import backing_below
from blockyard.commands.snapshot import root_node
from blockyard.errors import ImageIOError, InvalidOption, from_errno
from blockyard.qmp.command import command
from blockyard.schema.declare import struct

if TYPE_CHECKING:
    from blockyard.node import Node
    from blockyard.yard import Yard

__all__ = ["change_backing_file"]


@struct
class ChangeBackingFileArguments:
    """What change-backing-file takes.

    device: the top of the backing chain; no other node uses it.
    image-node-name: the image in the chain whose header is written.
    backing-file: the new name, or nothing; nobody looks whether it can be opened.
    """

    device: str
    image_node_name: str
    backing_file: str


@command("change-backing-file", args=ChangeBackingFileArguments)
async def change_backing_file(yard: Yard, args: ChangeBackingFileArguments) -> None:
    """Write another backing file's name into an image; the open chain stays as it is."""
    graph = yard.graph
    async with graph.writer:
        top = root_node(graph, args.device)
        node = graph.lookup(args.image_node_name)
        if not list(backing_below(node)):
            raise InvalidOption(
                "not allowing backing file change on an image without a backing file"
            )
        if node not in [top, *backing_below(top)]:
            raise InvalidOption(f"'{args.device}' and image file are not in the same chain")
        was_read_only = node.read_only
        if was_read_only:
            await change_options(graph, node, {"read-only": False})
        try:
            await _change(node, args.backing_file)
        finally:
            if was_read_only:
                await change_options(graph, node, {"read-only": True})


async def _change(node: Node, file: str) -> None:
    # The format that is recorded is the image's own: QEMU's behaviour.
    fmt = node.type.name if file else None
    try:
        await node.driver.change_backing(file or None, fmt)
    except ImageIOError as error:
        text = f"Could not change backing file to '{file}'"
        raise from_errno(error.errno or 5, text) from error
    node.record_backing(file, fmt)
