# SPDX-License-Identifier: Apache-2.0
"""The state of a machine that is saved beside its disk, in the same image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.errors import from_errno
from blockyard.permission import Role

if TYPE_CHECKING:
    from blockyard.node import Node

__all__ = ["MachineState"]

_ENOTSUP = 95


class MachineState:
    """The part of a driver that reads and writes such state.

    A driver that keeps none asks its primary child.  Offsets begin at 0 with the
    state's first byte.
    """

    node: Node

    def machine_state_offset(self) -> int:
        """Where the state would lie if it were part of the disk, for people; 0: nowhere.

        A filter says what is true of the node that it shows.
        """
        shown = [c.node for c in self.node.children.values() if c.role & Role.FILTERED]
        return shown[0].driver.machine_state_offset() if shown else 0

    async def load_machine_state(self, offset: int, view: Any) -> None:
        """Fill ``view`` with the state's bytes from ``offset`` on.

        :raises ImageIOError: ENOTSUP by drivers that keep none, or if it fails.
        """
        await self._state_below().load_machine_state(offset, view)

    async def save_machine_state(self, offset: int, view: Any) -> None:
        """Write ``view`` into the state at ``offset``; the node is writable.

        :raises ImageIOError: ENOTSUP by drivers that keep none, or if it fails.
        """
        await self._state_below().save_machine_state(offset, view)

    def _state_below(self) -> MachineState:
        for child in self.node.children.values():
            if child.role & Role.PRIMARY:
                return child.node.driver
        raise from_errno(_ENOTSUP)
