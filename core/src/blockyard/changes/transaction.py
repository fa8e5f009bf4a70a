# SPDX-License-Identifier: Apache-2.0
"""All or nothing: the graph's changes as lists of actions.

An action is done first and recorded with :meth:`Transaction.add`; at the end
either all ``commit`` callbacks run, in the order recorded, or all ``abort``
callbacks, in reverse.  Neither may fail.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Action", "Transaction"]

#: A plain or an async function without arguments.
Action = Callable[[], Awaitable[None] | None]


class Transaction:
    """``async with Transaction() as tran``: commits at the end, aborts on an exception.

    Both ends are shielded from cancellation.
    """

    def __init__(self) -> None:
        self._commits: list[Action] = []
        self._aborts: list[Action] = []

    def add(self, *, commit: Action | None = None, abort: Action | None = None) -> None:
        """Record what ends an action that has just been done."""
        if commit is not None:
            self._commits.append(commit)
        if abort is not None:
            self._aborts.append(abort)

    async def commit(self) -> None:
        """Make everything final."""
        await self._run(self._commits)

    async def abort(self) -> None:
        """Undo everything, the last action first."""
        await self._run(self._aborts[::-1])

    async def __aenter__(self) -> Transaction:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.commit()
        else:
            await self.abort()

    async def _run(self, actions: list[Action]) -> None:
        self._commits, self._aborts = [], []
        with anyio.CancelScope(shield=True):
            for action in actions:
                ended = action()
                if ended is not None:
                    await ended
