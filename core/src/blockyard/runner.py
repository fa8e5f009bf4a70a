# SPDX-License-Identifier: Apache-2.0
"""Native work that Python starts, watches, cancels, and that ends with an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from blockyard.errors import InvalidOption

if TYPE_CHECKING:
    from blockyard.loop import Control, Event

__all__ = ["Runner"]

_DONE = 1


class Runner:
    """One native thing, started once, that ends with an event."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._native: Any = None

    def _start(self, tag: int) -> Any:
        raise NotImplementedError

    def _cancel(self) -> None:
        raise NotImplementedError

    def _event(self, event: Event) -> None:
        """One that is not the end."""

    async def _run(self) -> Event:
        """Run to the end; the last event.  Cancelling ends it and waits until it has ended."""
        ended = anyio.Event()
        last: list[Event] = []

        def handler(event: Event) -> None:
            if event.kind == _DONE:
                last.append(event)
                ended.set()
            else:
                self._event(event)

        tag = self._control.tag(handler)
        try:
            self._native = self._start(tag)
            if self._native == self._control.ffi.NULL:
                self._native = None
                raise InvalidOption("The parameters make no sense")
            try:
                await ended.wait()
            except BaseException:
                self._cancel()
                with anyio.CancelScope(shield=True):
                    await ended.wait()
                raise
        finally:
            self._control.release(tag)
        return last[0]
