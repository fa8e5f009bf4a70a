# SPDX-License-Identifier: Apache-2.0
"""blockdev-del: which nodes it may end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.changes.topology import parent_nodes, roots_of
from blockyard.errors import Busy
from blockyard.node import Child
from blockyard.permission import Role

if TYPE_CHECKING:
    from blockyard.node import Node

__all__ = ["check_deletable"]


def check_deletable(node: Node) -> None:
    """Refuse to let blockdev-del end a node that is used, or is not blockdev-add's.

    :raises Busy: with QEMU's text.
    """
    if roots_of([node]) or any(bitmap.busy for bitmap in node.bitmaps.values()):
        raise Busy(f"Node {node.name} is in use")
    for user in node.parents:
        if isinstance(user, Child) and user.role & Role.COW:
            raise Busy(
                f"Node '{node.name}' is busy: node is used as backing hd of '{user.parent.name}'"
            )
    if not node.monitor_owned:
        raise Busy(f"Node {node.name} is not owned by the monitor")
    if parent_nodes(node) or node.holders:
        raise Busy(f"Block device {node.name} is in use")
