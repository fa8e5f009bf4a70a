# SPDX-License-Identifier: Apache-2.0
"""QMP events: declaring them, and the bus that carries them to the monitors.

An event is a struct of the schema and an entry point in the group
``blockyard.events`` whose name is the event's::

    @event("BLOCK_EXPORT_DELETED")
    @struct
    class BlockExportDeleted:
        id: str

    yard.events.emit(BlockExportDeleted(id="e0"))
"""

import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import anyio
import attrs

from blockyard.schema.structure import dump

__all__ = ["EventBus", "EventType", "Subscriber", "event", "event_type"]

_T = TypeVar("_T", bound=type)


@attrs.frozen(eq=False, repr=False, kw_only=True)
class EventType:
    """What the bus and introspection know of an event."""

    #: Its name on the wire.
    name: str
    #: The struct of its data.
    data: type
    #: QAPI features.
    features: tuple[str, ...] = ()
    #: At most one in so many seconds; the last one is delayed, others are dropped.  0: all.
    interval: float = 0.0
    #: The attribute that tells apart events limited separately; None: all count together.
    key: str | None = None


def event(
    name: str,
    *,
    features: tuple[str, ...] = (),
    interval: float = 0.0,
    key: str | None = None,
) -> Callable[[_T], _T]:
    """Declare the decorated struct as the data of the QMP event ``name``."""

    def decorate(cls: _T) -> _T:
        record = EventType(name=name, data=cls, features=features, interval=interval, key=key)
        cls.__qmp_event__ = record  # type: ignore[attr-defined]
        return cls

    return decorate


def event_type(cls: type) -> EventType:
    """The record that :func:`event` left on a class.

    :raises TypeError: if it is not an event.
    """
    record = cls.__dict__.get("__qmp_event__")
    if not isinstance(record, EventType):
        raise TypeError(f"{cls!r} is not declared with @event")
    return record


#: Called with the event's message as monitors write it; it must neither wait nor raise.
Subscriber = Callable[[dict[str, Any]], None]


@attrs.define(eq=False, repr=False)
class _Limited:
    """A rate-limited kind inside its interval; ``message`` is what came last meanwhile."""

    until: float
    interval: float
    message: dict[str, Any] | None = None


class EventBus:
    """Carries events from whoever emits them to every subscriber, on the control thread."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []
        self._limited: dict[Hashable, _Limited] = {}
        self._changed = anyio.Event()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Deliver all further events to ``subscriber``; call the answer to end that."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def emit(self, data: Any) -> None:
        """Send the event whose data this is.

        :raises TypeError: if it is no instance of an event's struct.
        """
        kind = event_type(type(data))
        if kind.interval:
            self._emit_limited(kind, data)
        elif self._subscribers:
            self._deliver(_message(kind, data))

    async def serve(self) -> None:
        """Deliver delayed events when their time has come, until cancelled."""
        while True:
            now = time.monotonic()
            self._expire(now)
            next_time = min((limited.until for limited in self._limited.values()), default=None)
            self._changed = anyio.Event()
            with anyio.move_on_after(None if next_time is None else next_time - now):
                await self._changed.wait()

    def _emit_limited(self, kind: EventType, data: Any) -> None:
        now = time.monotonic()
        self._expire(now)
        key = (kind.name, getattr(data, kind.key) if kind.key else None)
        if key in self._limited:
            self._limited[key].message = _message(kind, data)
            return
        self._deliver(_message(kind, data))
        self._limited[key] = _Limited(now + kind.interval, kind.interval)
        self._changed.set()

    def _expire(self, now: float) -> None:
        """Send what was delayed; a kind stays limited for as long as events keep coming."""
        for key, limited in list(self._limited.items()):
            if limited.until > now:
                continue
            if limited.message is None:
                del self._limited[key]
                continue
            self._deliver(limited.message)
            limited.message = None
            limited.until = now + limited.interval

    def _deliver(self, message: dict[str, Any]) -> None:
        for subscriber in tuple(self._subscribers):
            subscriber(message)


def _message(kind: EventType, data: Any) -> dict[str, Any]:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    message: dict[str, Any] = {
        "timestamp": {"seconds": seconds, "microseconds": nanoseconds // 1000},
        "event": kind.name,
    }
    if body := dump(data):
        message["data"] = body
    return message
