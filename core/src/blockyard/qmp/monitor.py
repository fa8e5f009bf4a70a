# SPDX-License-Identifier: Apache-2.0
"""A monitor: serves one client of its chardev after the other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from blockyard.qmp.version import version_info
from blockyard.schema.structure import dump

if TYPE_CHECKING:
    from blockyard.qmp.dispatcher import Dispatcher
    from blockyard.qmp.event import EventBus
    from blockyard.qmp.session import Session
    from blockyard.qmp.stream import Carrier, Stream

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
        *,
        pretty: bool = False,
    ) -> None:
        self.name = name
        self.pretty = pretty
        self._carrier = carrier
        self._dispatcher = dispatcher
        self._events = events
        # Of what runs: an upgrade may replace what is installed before a client comes.
        self._version = dump(version_info())
        self._session: Session | None = None

    async def serve(self) -> None:
        """Serve clients until cancelled; what one of them breaks does not reach the next."""
        while True:
            await self.serve_one()

    async def serve_one(self) -> None:
        """Wait for a client and serve it until it goes."""
        stream = await self._carrier.accept()
        try:
            self._session = self._open(stream)
            await self._session.run()
        except Exception:
            _log.exception("monitor %s: the session failed and was ended", self.name)
            await stream.aclose()
        finally:
            self._session = None

    def _open(self, stream: Stream) -> Session:
        # With JSON and all that it says, this is imported for a client, not for the start.
        from blockyard.qmp.session import Session

        return Session(
            stream,
            self._dispatcher,
            self._events,
            self._version,
            name=self.name,
            pretty=self.pretty,
        )

    async def finish(self, seconds: float) -> None:
        """Let the present client read what it was told, for so many seconds at most."""
        if self._session is not None:
            await self._session.finish(seconds)
