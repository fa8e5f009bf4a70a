# SPDX-License-Identifier: Apache-2.0
"""Telling that an image's tables are damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.qmp.event import event
from blockyard.schema.declare import struct

if TYPE_CHECKING:
    from blockyard.node import Node

__all__ = ["BlockImageCorrupted", "report_corruption"]


@event("BLOCK_IMAGE_CORRUPTED")
@struct
class BlockImageCorrupted:
    """The data of BLOCK_IMAGE_CORRUPTED.

    device: always empty; there are no devices here.
    node-name: the node of the image.
    msg: what was found, for people.
    offset: where the wrong access would have been, in bytes.
    size: of the access, in bytes.
    fatal: the image is marked as corrupt and cannot be used any more.
    """

    device: str
    node_name: str | None = None
    msg: str
    offset: int | None = None
    size: int | None = None
    fatal: bool


def report_corruption(
    node: Node, text: str, *, offset: int | None = None, size: int | None = None, fatal: bool
) -> None:
    """Send BLOCK_IMAGE_CORRUPTED; on the control thread.

    Standard error has been told by the driver, at once.  The driver decides what is
    worth telling: after one that is not fatal QEMU tells of no further one, and after a
    fatal one of none at all.  ``fatal`` is for images that could be written.
    """
    node.graph.events.emit(
        BlockImageCorrupted(
            device="", node_name=node.name, msg=text, offset=offset, size=size, fatal=fatal
        )
    )
