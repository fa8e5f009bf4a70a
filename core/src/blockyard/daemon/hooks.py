# SPDX-License-Identifier: Apache-2.0
"""Hooks: for plugins that want to know what the daemon is doing.

An entry point in the group ``blockyard.hooks`` names a module or object with functions
marked ``@hookimpl`` that are called as the specifications below; all of them are, so
this is for who wants to know, never for who is asked for something.  pluggy is imported
when there is such an entry point, and then counts against start-up.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["Hooks", "Specifications"]

_log = logging.getLogger(__name__)


class Specifications:
    """What may be hooked.  Each may be ``async``; what one raises is logged, no more."""

    def blockyard_started(self, yard: Yard) -> Any:
        """The yard exists; no option has been applied yet."""

    def blockyard_ready(self, yard: Yard) -> Any:
        """All options have been applied, and clients may connect."""

    def blockyard_stopping(self, yard: Yard) -> Any:
        """The daemon was told to stop; everything is still there."""


class Hooks:
    """The hooks that are installed."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._manager: Any = None
        if yard.registry.names("hooks"):
            self._manager = _manager(yard)

    async def started(self) -> None:
        """Call ``blockyard_started``."""
        await self._call("blockyard_started")

    async def ready(self) -> None:
        """Call ``blockyard_ready``."""
        await self._call("blockyard_ready")

    async def stopping(self) -> None:
        """Call ``blockyard_stopping``."""
        await self._call("blockyard_stopping")

    async def _call(self, name: str) -> None:
        if self._manager is None:
            return
        for implementation in getattr(self._manager.hook, name).get_hookimpls():
            try:
                answer = implementation.function(self._yard)
                if hasattr(answer, "__await__"):
                    await answer
            except Exception:
                _log.exception("hook %s of %s", name, implementation.plugin_name)


def _manager(yard: Yard) -> Any:
    import pluggy

    manager = pluggy.PluginManager("blockyard")
    specify = pluggy.HookspecMarker("blockyard")
    for name, function in vars(Specifications).items():
        if name.startswith("blockyard_"):
            specify(function)
    manager.add_hookspecs(Specifications)
    for name, plugin in yard.registry.every("hooks"):
        manager.register(plugin, name=name)
    return manager
