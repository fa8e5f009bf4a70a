# SPDX-License-Identifier: Apache-2.0
"""What the control halves of filters have in common: they show one child as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from blockyard.driver import Driver
from blockyard.request import Limits

if TYPE_CHECKING:
    from blockyard.errors import BlockyardError
    from blockyard.node import Node

__all__ = ["FilterDriver"]


class FilterDriver(Driver):
    """A driver whose child :attr:`shown_child` is what its users see.

    It can be reopened, and leaves what has no place of its own to that child.
    """

    #: The child's name.
    shown_child: ClassVar[str] = "file"

    @property
    def shown(self) -> Node:
        """The node that is shown."""
        return self.node.children[self.shown_child].node

    def shown_limits(self) -> Limits:
        """What users should know of the limits below; that node splits and aligns by itself."""
        below = self.shown.limits
        return Limits(
            request_alignment=1,
            memory_alignment=below.memory_alignment,
            optimal_transfer=below.optimal_transfer,
            discard_alignment=below.discard_alignment,
        )

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        """Nothing is to be prepared."""

    def truncate_error(self, length: int, prealloc: str, error: BlockyardError) -> BlockyardError:
        """The child's own words: the request was its."""
        return self.shown.driver.truncate_error(length, prealloc, error)

    def can_compress(self) -> bool:
        """As the child."""
        return self.shown.driver.can_compress()
