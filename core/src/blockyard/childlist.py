# SPDX-License-Identifier: Apache-2.0
"""Children that come and go while a node is open.

Where a driver's options have a list of children (``ChildSpec.many``), its list may be
open to additions and removals, by ``x-blockdev-change``.  :class:`ChildList` is a part
of :class:`blockyard.driver.Driver`; a driver whose list is open sets
:attr:`ChildList.list_changes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from blockyard.errors import Unsupported

if TYPE_CHECKING:
    from blockyard.node import Child, Node

__all__ = ["ChildList"]


class ChildList:
    """The part of a driver that agrees to changes of its list of children."""

    node: Node
    #: Whether children may be added and removed while the node is open.
    list_changes: ClassVar[bool] = False

    def new_child_name(self, node: Node) -> str:
        """What ``node`` would be called as the last child; the list has not changed yet.

        :raises BlockyardError: if it cannot be one.
        """
        raise Unsupported(f"The node {self.node.name} does not support adding a child")

    def check_child_leaves(self, child: Child) -> None:
        """Refuse that a child goes.

        :raises BlockyardError: with QEMU's text.
        """

    def child_list_changed(self, joined: str | None, left: str | None) -> None:
        """A child has come or gone, by this name; in the drained section.  Cannot fail."""
