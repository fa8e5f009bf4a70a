# SPDX-License-Identifier: Apache-2.0
"""The chardev ``null``: output goes nowhere, input never comes."""

from blockyard.chardev.base import Chardev
from blockyard.chardev.kinds import NULL
from blockyard.chardev.streams import Sink

__all__ = ["NullChardev"]


class NullChardev(Chardev):
    """Nothing."""

    type = NULL

    async def open(self, *, wait: bool) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def accept(self) -> Sink:
        """A stream that discards what it is given."""
        return Sink(self._write)

    def _write(self, data: bytes) -> None:
        if self.log:
            self.log.write(data)
