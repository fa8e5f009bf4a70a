# SPDX-License-Identifier: Apache-2.0
"""The chardev ``ringbuf`` (``memory``, its old name): keeps the newest output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.chardev.base import Chardev
from blockyard.chardev.kinds import MEMORY, RINGBUF
from blockyard.chardev.streams import Sink
from blockyard.errors import InvalidOption

if TYPE_CHECKING:
    from blockyard.schema.chardevkinds import ChardevRingbuf

__all__ = ["MemoryChardev", "RingbufChardev"]

_DEFAULT = 65536


class RingbufChardev(Chardev):
    """At most ``size`` bytes; the oldest go first when it is full."""

    type = RINGBUF
    options: ChardevRingbuf

    async def open(self, *, wait: bool) -> None:
        """Check the size; memory is taken as it fills."""
        self._size = self.options.size or _DEFAULT
        if self._size < 0 or self._size & (self._size - 1):
            raise InvalidOption("size of ringbuf chardev must be power of two")
        self._data = bytearray()

    async def close(self) -> None:
        """Forget what is in it."""
        self._data = bytearray()

    async def accept(self) -> Sink:
        """A stream whose output is kept."""
        return Sink(self.write)

    def write(self, data: bytes) -> None:
        """Append ``data``, dropping the oldest bytes where there is no room."""
        if self.log:
            self.log.write(data)
        self._data += data[-self._size :]
        del self._data[: max(0, len(self._data) - self._size)]

    def read(self, size: int) -> bytes:
        """Take out at most ``size`` bytes, the oldest first."""
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken


class MemoryChardev(RingbufChardev):
    """The same by its old name."""

    type = MEMORY
