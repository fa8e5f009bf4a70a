# SPDX-License-Identifier: Apache-2.0
"""block-set-write-threshold, and its event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.errors import NotFound
from blockyard.qmp.command import command
from blockyard.qmp.event import event
from blockyard.schema.declare import Uint64, struct

if TYPE_CHECKING:
    from blockyard.loop import Event
    from blockyard.node import Node
    from blockyard.yard import Yard

__all__ = ["BlockWriteThreshold", "block_set_write_threshold"]


@event("BLOCK_WRITE_THRESHOLD")
@struct
class BlockWriteThreshold:
    """The data of BLOCK_WRITE_THRESHOLD: a write went beyond the threshold, which is off now.

    node-name: the node.
    amount-exceeded: bytes by which the write went beyond it.
    write-threshold: the threshold that was set.
    """

    node_name: str
    amount_exceeded: Uint64
    write_threshold: Uint64


@struct
class BlockSetWriteThresholdArguments:
    """What block-set-write-threshold takes.

    node-name: the node.
    write-threshold: the offset whose writing is told, once; 0 switches it off.
    """

    node_name: str
    write_threshold: Uint64


@command("block-set-write-threshold", args=BlockSetWriteThresholdArguments)
async def block_set_write_threshold(yard: Yard, args: BlockSetWriteThresholdArguments) -> None:
    """Tell once when a write goes beyond an offset."""
    node = yard.graph.nodes.get(args.node_name)
    if node is None:
        raise NotFound(f"Device '{args.node_name}' not found")
    _release_tag(yard, node)
    tag = _new_tag(yard, node) if args.write_threshold else 0
    yard.graph.carrier.set_threshold(node, args.write_threshold, tag)


def _new_tag(yard: Yard, node: Node) -> int:
    def crossed(event: Event) -> None:
        _release_tag(yard, node)
        yard.events.emit(
            BlockWriteThreshold(
                node_name=node.name, amount_exceeded=event.a, write_threshold=event.b
            )
        )

    node.threshold_tag = yard.control.tag(crossed)
    return node.threshold_tag


def _release_tag(yard: Yard, node: Node) -> None:
    yard.control.release(node.threshold_tag)
    node.threshold_tag = 0
