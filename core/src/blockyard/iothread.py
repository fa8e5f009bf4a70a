# SPDX-License-Identifier: Apache-2.0
"""The objects ``iothread`` and ``main-loop``: native loops and how they spin.

A loop spins for up to ``poll-max-ns`` before it sleeps, adaptively: it begins
short, grows with each hit and shrinks with each miss, and not at all when
processors are short.  0 switches it off.
"""

from __future__ import annotations

import abc
from typing import Any

import attrs

from blockyard.errors import InvalidOption
from blockyard.loop import Loop, LoopParams
from blockyard.objects import Object, ObjectType, Property
from blockyard.schema.qom import IothreadProperties, MainLoopProperties

__all__ = ["IOTHREAD", "MAIN_LOOP", "Iothread", "MainLoop"]

IOTHREAD = ObjectType(
    name="iothread",
    options=IothreadProperties,
    implementation="blockyard.iothread:Iothread",
    parent="event-loop-base",
)
MAIN_LOOP = ObjectType(
    name="main-loop",
    options=MainLoopProperties,
    implementation="blockyard.iothread:MainLoop",
    parent="event-loop-base",
)

_LIMIT = (1 << 63) - 1
_WEIGHT_LIMIT = 63
#: An int's, as in QEMU.
_THREADS_LIMIT = (1 << 31) - 1
_POOL_DEFAULTS = {"thread_pool_min": 0, "thread_pool_max": 64}
#: What the native loop takes for 0 (csrc/poll.c).
_POLL_DEFAULTS = {"poll_grow": 2, "poll_shrink": 2, "poll_weight": 3}


class _EventLoop(Object):
    """What both have: parameters that can be changed while the loop runs."""

    _names: tuple[str, ...] = ("aio_max_batch", "thread_pool_min", "thread_pool_max")

    async def start(self) -> None:
        values = {name: getattr(self.options, name, None) for name in self._names}
        self._values = {name: _checked(name, v) for name, v in values.items() if v is not None}
        _check_pool(self._values)
        self._begin(self._params())

    @abc.abstractmethod
    def _begin(self, params: LoopParams) -> None: ...

    @abc.abstractmethod
    def _loop(self) -> Loop: ...

    def _params(self) -> LoopParams:
        known = {field.name for field in attrs.fields(LoopParams)}
        return LoopParams(**{k: v for k, v in self._values.items() if k in known})

    def properties(self) -> dict[str, Property]:
        return {name.replace("_", "-"): self._property(name) for name in self._names}

    def _property(self, name: str) -> Property:
        return Property(
            type="int",
            get=lambda: self._value(name),
            set=lambda value: self._change(name, value),
        )

    def _value(self, name: str) -> int:
        default = _POOL_DEFAULTS.get(name, getattr(LoopParams(), name, 0))
        return self._values.get(name, default) or _POLL_DEFAULTS.get(name, 0)

    def _change(self, name: str, value: Any) -> None:
        changed = {**self._values, name: _checked(name, value)}
        _check_pool(changed)
        self._values = changed
        self.yard.loops.set_params(self._loop(), self._params())


class Iothread(_EventLoop):
    """A native loop thread by name."""

    type = IOTHREAD
    _names = (*_EventLoop._names, "poll_max_ns", "poll_grow", "poll_shrink", "poll_weight")

    def _begin(self, params: LoopParams) -> None:
        self.yard.loops.add(self.id, params)

    def _loop(self) -> Loop:
        return self.yard.loops.get(self.id)

    async def stop(self) -> None:
        """Join the thread."""
        await self.yard.loops.remove(self.id)

    def in_use(self) -> bool:
        """Whether nodes or exports are served by it."""
        return self._loop().users > 0

    @property
    def thread_id(self) -> int:
        """The kernel's id of the thread."""
        return self.yard.loops.thread_id(self._loop())


class MainLoop(_EventLoop):
    """Parameters for the main loop, which exists without it."""

    type = MAIN_LOOP

    async def start(self) -> None:
        """There is one main loop.

        :raises InvalidOption: if there is such an object already.
        """
        if any(isinstance(found, MainLoop) for found in self.yard.objects):
            raise InvalidOption("only one main-loop instance allowed")
        await super().start()

    def _begin(self, params: LoopParams) -> None:
        self.yard.loops.set_params(self.yard.loops.main, params)

    def _loop(self) -> Loop:
        return self.yard.loops.main

    async def stop(self) -> None:
        """Go back to the defaults."""
        self.yard.loops.set_params(self.yard.loops.main, LoopParams())

    def in_use(self) -> bool:
        """It can go at any time."""
        return False


def _checked(name: str, value: Any) -> int:
    limit = _WEIGHT_LIMIT if name == "poll_weight" else _LIMIT
    if not isinstance(value, int) or not 0 <= value <= limit:
        raise InvalidOption(f"{name.replace('_', '-')} value must be in range [0, {limit}]")
    return value


def _check_pool(values: dict[str, int]) -> None:
    most = values.get("thread_pool_max", _POOL_DEFAULTS["thread_pool_max"])
    least = values.get("thread_pool_min", _POOL_DEFAULTS["thread_pool_min"])
    if not least <= most <= _THREADS_LIMIT or most == 0:
        raise InvalidOption("bad thread-pool-min/thread-pool-max values")
