# SPDX-License-Identifier: Apache-2.0
"""Tenants: what one of them breaks ends only that one.

A tenant is a client, an export, a job or a monitor.  Each runs as a task of its own; what
it raises is reported through logging and ends there::

    tenant = Tenant("monitor m0")
    yard.spawn(tenant.run, monitor.serve)
    await tenant.stop()
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs

__all__ = ["Tenant"]

_log = logging.getLogger(__name__)


@attrs.define(eq=False, repr=False)
class Tenant:
    """One supervised task."""

    name: str
    _scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    _done: anyio.Event = attrs.field(factory=anyio.Event)

    def cancel(self) -> None:
        """Ask it to end; returns at once."""
        self._scope.cancel()

    async def stop(self) -> None:
        """Ask it to end and wait until it has."""
        self._scope.cancel()
        await self._done.wait()

    async def wait(self) -> None:
        """Wait until it has ended, however that comes."""
        await self._done.wait()

    async def run(self, function: Callable[..., Awaitable[Any]], *args: object) -> None:
        """Run ``function(*args)``; a tenant runs once."""
        try:
            with self._scope:
                await function(*args)
        except Exception:
            _log.exception("%s failed and was ended", self.name)
        finally:
            self._done.set()
