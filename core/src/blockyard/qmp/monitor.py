# SPDX-License-Identifier: Apache-2.0
"""A monitor: serves one client of its chardev after the other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from blockyard.qmp.session import Session

if TYPE_CHECKING:
    from blockyard.qmp.dispatcher import Dispatcher
    from blockyard.qmp.event import EventBus
    from blockyard.qmp.stream import Carrier

__all__ = ["Monitor"]

_log = logging.getLogger(__name__)


class Monitor:
    """A QMP monitor on a chardev."""

    def __init__(
        self,
        name: str,
        carrier: Carrier,
        dispatcher: Dispatcher,
        events: EventBus,
        version: dict[str, Any],
        *,
        pretty: bool = False,
    ) -> None:
        self.name = name
        self.pretty = pretty
        self._carrier = carrier
        self._dispatcher = dispatcher
        self._events = events
        self._version = version
        self._session: Session | None = None

    async def serve(self) -> None:
        """Serve clients until cancelled; what one of them breaks does not reach the next."""
        while True:
            await self.serve_one()

    async def serve_one(self) -> None:
        """Wait for a client and serve it until it goes."""
        stream = await self._carrier.accept()
        self._session = Session(
            stream,
            self._dispatcher,
            self._events,
            self._version,
            name=self.name,
            pretty=self.pretty,
        )
        try:
            await self._session.run()
        except Exception:
            _log.exception("monitor %s: the session failed and was ended", self.name)
        finally:
            self._session = None

    async def finish(self, seconds: float) -> None:
        """Let the present client read what it was told, for so many seconds at most."""
        if self._session is not None:
            await self._session.finish(seconds)
