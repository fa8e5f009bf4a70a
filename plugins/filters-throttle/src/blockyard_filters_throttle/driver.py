# SPDX-License-Identifier: Apache-2.0
"""The control half of ``throttle``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.errors import NotFound
from blockyard.filterdriver import FilterDriver
from blockyard.node import Opened
from blockyard_filters_throttle.group import ThrottleGroup
from blockyard_filters_throttle.native import ffi, lib

if TYPE_CHECKING:
    from blockyard.node import Node

__all__ = ["ThrottleDriver"]


class ThrottleDriver(FilterDriver):
    """Requests wait here while their group is over its limits."""

    def __init__(self, options: Any, node: Node) -> None:
        super().__init__(options, node)
        self._state = ffi.NULL
        self._group: ThrottleGroup
        #: The group that a reopen is about to move the node to.
        self._next: ThrottleGroup | None = None

    async def open(self) -> Opened:
        """Join the group.

        :raises NotFound: if there is none of that name.
        """
        group = self._join(self.options.throttle_group)
        self._state = lib.by_throttle_create(group.native)
        if self._state == ffi.NULL:
            group.members -= 1
            raise MemoryError
        self._group = group
        return Opened(
            ops=lib.by_throttle_ops(),
            state=int(ffi.cast("uintptr_t", self._state)),
            length=self.shown.length,
            limits=self.shown_limits(),
        )

    async def close(self) -> None:
        """Leave the group."""
        lib.by_throttle_free(self._state)
        self._state = ffi.NULL
        self._group.members -= 1

    def _join(self, name: str) -> ThrottleGroup:
        group = self.node.graph.objects.find(name)
        if not isinstance(group, ThrottleGroup):
            raise NotFound(f"Throttle group '{name}' does not exist")
        group.members += 1
        return group

    # -- reopen

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        """Another group may be named.

        :raises NotFound: if there is none of that name.
        """
        self._next = self._join(options.throttle_group)

    def reopen_commit(self) -> None:
        """Go over to it."""
        assert self._next is not None
        self._group.members -= 1
        self._group, self._next = self._next, None
        lib.by_throttle_move(self._state, self._group.native)

    async def reopen_abort(self) -> None:
        """Stay."""
        assert self._next is not None
        self._next.members -= 1
        self._next = None
