# SPDX-License-Identifier: Apache-2.0
"""Breakpoints on a driver's debug events.

A debug event ("l2_load", "write_aio") is announced by a format while it works, to the
node under it.  A filter that listens can stop the request that announced it, until it
is told to let it go on.  :class:`Breakpoints` is a part of
:class:`blockyard.driver.Driver`: a driver that does not listen asks its primary child.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.errors import from_errno
from blockyard.permission import Role

if TYPE_CHECKING:
    from blockyard.node import Node

__all__ = ["Breakpoints"]

_ENOTSUP = 95


class Breakpoints:
    """The part of a driver that stops requests at debug events.

    A tag names the breakpoint when it is set, and the request that it stops.  Every
    method raises ENOTSUP where no node below listens.
    """

    node: Node

    def debug_breakpoint(self, event: str, tag: str) -> None:
        """Stop the next request that announces ``event``, and call it ``tag``.

        :raises BlockyardError: if there is no such event.
        """
        self._below().debug_breakpoint(event, tag)

    def debug_remove_breakpoint(self, tag: str) -> None:
        """Take the breakpoints called ``tag`` away; what they stopped goes on.

        :raises BlockyardError: if there is none.
        """
        self._below().debug_remove_breakpoint(tag)

    def debug_resume(self, tag: str) -> None:
        """Let the request called ``tag`` go on.

        :raises BlockyardError: if none that is stopped has this name.
        """
        self._below().debug_resume(tag)

    def debug_is_suspended(self, tag: str) -> bool:
        """Whether a request called ``tag`` is stopped now."""
        return self._below().debug_is_suspended(tag)

    def _below(self) -> Breakpoints:
        """The driver of the primary child."""
        for child in self.node.children.values():
            if child.role & Role.PRIMARY:
                return child.node.driver
        raise from_errno(_ENOTSUP)
