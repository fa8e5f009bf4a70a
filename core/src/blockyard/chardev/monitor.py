# SPDX-License-Identifier: Apache-2.0
"""Monitors as objects: ``monitor-qmp``, and what all monitors of a yard share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from blockyard.chardev.registry import chardevs_of
from blockyard.errors import NotFound
from blockyard.objects import Object, ObjectType, Property
from blockyard.qmp.dispatcher import Dispatcher
from blockyard.qmp.monitor import Monitor
from blockyard.schema.control import MonitorQMPCloseAction, MonitorQMPProperties
from blockyard.schema.visitor import check
from blockyard.tenant import Tenant

if TYPE_CHECKING:
    from blockyard.chardev.base import Chardev
    from blockyard.yard import Yard

__all__ = ["MONITOR_QMP", "MonitorObject", "Monitors", "monitors_of"]

MONITOR_QMP = ObjectType(
    name="monitor-qmp",
    options=MonitorQMPProperties,
    implementation="blockyard.chardev.monitor:MonitorObject",
    parent="monitor",
)


class Monitors:
    """The one dispatcher, and how monitors end."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self.dispatcher = Dispatcher(yard, yard.registry)
        self._serving = Tenant("QMP dispatcher")
        self._numbers = 0
        yard.spawn(self._serving.run, self.dispatcher.serve)

    def next_id(self) -> str:
        """The id of a monitor that was given none."""
        self._numbers += 1
        return f"compat_monitor{self._numbers - 1}"

    async def finish(self, seconds: float) -> None:
        """Let all clients read what they were told, then end their sessions."""
        async with anyio.create_task_group() as tasks:
            for found in self._yard.objects:
                if isinstance(found, MonitorObject):
                    tasks.start_soon(found.monitor.finish, seconds)

    async def close(self) -> None:
        """Run no more commands."""
        await self._serving.stop()


def monitors_of(yard: Yard) -> Monitors:
    """The monitors of a yard, which has them from when somebody first asks."""
    found = yard.extra.get("monitors")
    if found is None:
        found = yard.extra["monitors"] = Monitors(yard)
    assert isinstance(found, Monitors)
    return found


class MonitorObject(Object):
    """A QMP monitor on a chardev, which is its alone."""

    type = MONITOR_QMP
    options: MonitorQMPProperties
    monitor: Monitor
    _chardev: Chardev
    _tenant: Tenant

    async def start(self) -> None:
        """Serve the chardev's clients.

        :raises NotFound: if there is no such chardev.
        :raises BlockyardError: if another monitor has it.
        """
        chardev = chardevs_of(self.yard).find(self.options.chardev)
        if chardev is None:
            raise NotFound(f'chardev "{self.options.chardev}" not found')
        chardev.claim(self)
        self._chardev = chardev
        self.monitor = Monitor(
            self.id,
            chardev,
            monitors_of(self.yard).dispatcher,
            self.yard.events,
            pretty=bool(self.options.pretty),
        )
        self._tenant = Tenant(f"monitor {self.id}")
        self.yard.spawn(self._tenant.run, self._serve)

    async def stop(self) -> None:
        """End the session, if there is one, and let go of the chardev."""
        await self._tenant.stop()
        self._chardev.release()

    async def _serve(self) -> None:
        await self.yard.accepting.wait()
        while True:
            await self.monitor.serve_one()
            if self.options.close_action == MonitorQMPCloseAction.DELETE:
                self.yard.spawn(self._delete)
                await anyio.sleep_forever()

    async def _delete(self) -> None:
        if self.yard.objects.find(self.id) is self:
            await self.yard.objects.delete(self.id)

    def properties(self) -> dict[str, Property]:
        """``chardev``, ``pretty`` and ``close-action``."""
        return {
            "chardev": Property(
                type="string", get=lambda: self.options.chardev, set=self._ignore_chardev
            ),
            "pretty": Property(type="bool", get=lambda: self.monitor.pretty, set=self._set_pretty),
            "close-action": Property(
                type="MonitorQMPCloseAction",
                get=lambda: self.options.close_action or MonitorQMPCloseAction.NONE,
                set=self._set_close_action,
            ),
        }

    def _ignore_chardev(self, value: Any) -> None:
        """The property is writable, but a monitor stays on the chardev that it began with."""

    def _set_pretty(self, value: bool) -> None:
        """Holds from the next client on."""
        self.monitor.pretty = value

    def _set_close_action(self, value: Any) -> None:
        checked = check(MonitorQMPCloseAction, value, name="close-action")
        self.options.close_action = MonitorQMPCloseAction(checked)
