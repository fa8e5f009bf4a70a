# SPDX-License-Identifier: Apache-2.0
"""Supervisors: what one tenant breaks ends only that tenant.

A tenant is a client, an export, a job or a monitor.  Each runs as a task of its own; what
it raises is reported through logging and ends there.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs
from anyio.abc import TaskGroup

__all__ = ["Supervisor", "Tenant"]

_log = logging.getLogger(__name__)


@attrs.define(eq=False)
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

    async def _run(self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        try:
            with self._scope:
                await function(*args)
        except Exception:
            _log.exception("%s failed and was ended", self.name)
        finally:
            self._done.set()


class Supervisor:
    """Starts tenants in one task group.

    The group's owner waits for them, or cancels the group's scope, when it ends.
    """

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._tenants: list[Tenant] = []

    @property
    def tenants(self) -> list[Tenant]:
        """Those that run, the oldest first."""
        return list(self._tenants)

    def start(
        self, name: str, function: Callable[..., Awaitable[Any]], *args: object
    ) -> Tenant:
        """Run ``function(*args)`` as a tenant, called ``name`` in reports."""
        tenant = Tenant(name)
        self._tenants.append(tenant)
        self._tasks.start_soon(self._supervise, tenant, function, args, name=name)
        return tenant

    async def _supervise(
        self, tenant: Tenant, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]
    ) -> None:
        try:
            await tenant._run(function, args)
        finally:
            self._tenants.remove(tenant)
