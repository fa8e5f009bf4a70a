# SPDX-License-Identifier: Apache-2.0
"""The lock that every change of the graph is made under."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Writer"]


class Writer:
    """One task at a time; a task that holds it may take it again.

    Waiters are served in order.  Waiting can be cancelled; a change that has begun
    cannot, so that it holds whole or not at all.
    """

    def __init__(self) -> None:
        self._lock: anyio.Lock | None = None
        self._holder: int | None = None
        self._depth = 0
        self._shield = anyio.CancelScope(shield=True)

    async def __aenter__(self) -> None:
        task = anyio.get_current_task().id
        if self._holder != task:
            # Made here, so that a Writer may be made outside an event loop.
            self._lock = self._lock or anyio.Lock()
            await self._lock.acquire()
            self._holder = task
            self._shield = anyio.CancelScope(shield=True)
            self._shield.__enter__()
        self._depth += 1

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            assert self._lock is not None
            self._holder = None
            self._lock.release()
            self._shield.__exit__(kind, error, trace)
