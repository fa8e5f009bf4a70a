# SPDX-License-Identifier: Apache-2.0
"""What a monitor needs of whatever carries it, and the bounded queue of what it says."""

from collections import deque
from typing import Protocol

import anyio

__all__ = ["Carrier", "Outbox", "Stream"]


class Stream(Protocol):
    """One client's connection, both ways."""

    async def receive(self) -> tuple[bytes, list[int]]:
        """Some bytes, and descriptors that came with them; ``b""`` at the end.

        The descriptors are the caller's to close.

        :raises OSError: if the connection broke.
        """

    async def send(self, data: bytes) -> None:
        """Send all of ``data``; waits for as long as the client does not read.

        :raises OSError: if the connection broke.
        """

    def hung_up(self) -> bool:
        """Whether the client is gone for good, not only done with sending."""

    async def aclose(self) -> None:
        """Close the connection; never fails, and may be called twice."""


class Carrier(Protocol):
    """A chardev, as a monitor sees it."""

    async def accept(self) -> Stream:
        """Wait for the next client."""


class Outbox:
    """Messages on their way to a client.

    Putting never waits.  Whoever can wait does so before it makes the client say more:
    :meth:`below` is the back-pressure, :attr:`size` what tells that a client stopped reading.
    """

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._changed = anyio.Event()
        #: Bytes that have been put and not yet been sent.
        self.size = 0

    def put(self, message: bytes) -> None:
        """Send ``message`` after all that was put before."""
        self._messages.append(message)
        self.size += len(message)
        self._notify()

    async def below(self, limit: int) -> None:
        """Wait until fewer than ``limit`` bytes are unsent."""
        while self.size >= limit:
            await self._changed.wait()

    async def serve(self, stream: Stream) -> None:
        """Send what is put, until cancelled.

        :raises OSError: if the connection broke.
        """
        while True:
            while self._messages:
                message = self._messages.popleft()
                await stream.send(message)
                self.size -= len(message)
                self._notify()
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
