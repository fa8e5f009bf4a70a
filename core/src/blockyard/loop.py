# SPDX-License-Identifier: Apache-2.0
"""The control thread's side of the native half: events, and loops.

Native threads never call Python.  What they have to say waits in one queue of
the process; :class:`Control` takes it in batches and hands each event to whoever
gave out its tag.  Several controls may live in one process, each on its own
event loop (asyncio's or trio's): whoever wakes first takes the batch and passes
on what belongs to the others.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import anyio
import attrs

from blockyard.errors import Busy, InvalidOption, NotFound, from_errno

__all__ = ["Control", "Event", "Loop", "LoopParams", "Loops"]

_log = logging.getLogger(__name__)

_BATCH = 256
_TAG_BITS = 40
#: The main loop spins longer than an iothread's default: in a guest that sleeps, waking
#: and being woken take 40 us each, and a spin that is shorter than both never begins.
_MAIN_POLL_MAX_NS = 131072


@attrs.frozen(eq=False, repr=False)
class Event:
    """One ``struct by_event``; the meaning of ``a`` and ``b`` is the kind's."""

    kind: int
    result: int
    a: int
    b: int


Handler = Callable[[Event], None]


class Control:
    """Tags and their handlers, for one event loop.

    Every method but :meth:`deliver` runs on the thread of that event loop.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _controls: ClassVar[dict[int, Control]] = {}
    _numbers: ClassVar[itertools.count[int]] = itertools.count(1)

    def __init__(self, *, without_ring: bool = False) -> None:
        """Start the native half if this is the process's first control.

        :raises ImageIOError: if the event queue or the pool cannot be made.
        """
        from blockyard._native import ffi, lib

        self.ffi: Any = ffi
        self.lib: Any = lib
        self._number = next(self._numbers)
        self._tags = itertools.count(1)
        self._handlers: dict[int, Handler] = {}
        self._passed: deque[tuple[int, Event]] = deque()
        self._batch = ffi.new("struct by_event[]", _BATCH)
        with self._lock:
            if (result := lib.by_start(1 if without_ring else 0)) < 0:
                raise from_errno(result, "Could not start the native half")
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._controls[self._number] = self

    # -- tags

    def tag(self, handler: Handler) -> int:
        """A new tag; ``handler`` runs on this event loop for each event that carries it."""
        tag = self._number << _TAG_BITS | next(self._tags)
        self._handlers[tag] = handler
        return tag

    def release(self, tag: int) -> None:
        """Forget a tag; later events that carry it are dropped."""
        self._handlers.pop(tag, None)

    async def call(self, start: Callable[[int], Any]) -> Event:
        """Run ``start(tag)`` and wait for the one event that answers it.

        Cancelled, it waits all the same: what was begun ends first.

        :raises ImageIOError: if ``start`` answers a negative errno; there is no event then.
        """
        done = anyio.Event()
        answer: list[Event] = []

        def handler(event: Event) -> None:
            self.release(tag)
            answer.append(event)
            done.set()

        tag = self.tag(handler)
        result = start(tag)
        if isinstance(result, int) and result < 0:
            self.release(tag)
            raise from_errno(result)
        with anyio.CancelScope(shield=True):
            await done.wait()
        return answer[0]

    # -- the queue

    async def serve(self) -> None:
        """Deliver events until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._serve_queue)
            tasks.start_soon(self._serve_passed)

    async def _serve_queue(self) -> None:
        fd = self.lib.by_event_fd()
        while True:
            await anyio.wait_readable(fd)
            self.deliver()

    async def _serve_passed(self) -> None:
        while True:
            await anyio.wait_readable(self._wake)
            os.eventfd_read(self._wake)
            while self._passed:
                self._handle(*self._passed.popleft())

    def deliver(self) -> None:
        """Take what waits in the queue, once, and hand it out."""
        count = self.lib.by_event_take(self._batch, _BATCH)
        for i in range(count):
            raw = self._batch[i]
            event = Event(raw.kind, raw.result, raw.a, raw.b)
            number = raw.tag >> _TAG_BITS
            if number == self._number:
                self._handle(raw.tag, event)
            else:
                self._pass(number, raw.tag, event)

    @classmethod
    def _pass(cls, number: int, tag: int, event: Event) -> None:
        # Locked: a control that closes meanwhile takes its descriptor with it.
        with cls._lock:
            if other := cls._controls.get(number):
                other._passed.append((tag, event))
                os.eventfd_write(other._wake, 1)

    def _handle(self, tag: int, event: Event) -> None:
        if handler := self._handlers.get(tag):
            try:
                handler(event)
            except Exception:
                # Were it let through, nobody would ever get an event again: every call
                # would wait for ever, and those that end the program too.
                _log.exception("the handler of an event failed")

    def close(self) -> None:
        """Give this control up; the last one joins the native threads (and so waits)."""
        with self._lock:
            del self._controls[self._number]
            os.close(self._wake)
            if not self._controls:
                self.lib.by_stop()


@attrs.frozen(eq=False, repr=False, kw_only=True)
class LoopParams:
    """An iothread's parameters; 0 where the default holds.  Nanoseconds, and a count."""

    poll_max_ns: int = 32768
    poll_grow: int = 0
    poll_shrink: int = 0
    poll_weight: int = 0
    aio_max_batch: int = 0
    thread_pool_min: int = 0
    thread_pool_max: int = 0


@attrs.define(eq=False)
class Loop:
    """A native loop thread.  ``users`` are what is served by it: nodes, exports."""

    name: str
    native: Any
    params: LoopParams
    users: int = 0


class Loops:
    """The main loop, and the iothreads by name.

    The main loop's thread is started when something first needs it.
    """

    def __init__(self, control: Control) -> None:
        self._control = control
        self._named: dict[str, Loop] = {}
        self._main: Loop | None = None

    @property
    def main(self) -> Loop:
        """The loop of whatever is in no iothread."""
        if self._main is None:
            self._main = self._start("main", LoopParams(poll_max_ns=_MAIN_POLL_MAX_NS))
        return self._main

    def add(self, name: str, params: LoopParams) -> Loop:
        """Start an iothread.

        :raises InvalidOption: if the name is taken.
        :raises ImageIOError: if the thread or its ring cannot be made.
        """
        if name in self._named:
            raise InvalidOption(f"Duplicate ID '{name}' for iothread")
        self._named[name] = self._start(name, params)
        return self._named[name]

    def get(self, name: str) -> Loop:
        """The iothread of that name.

        :raises NotFound: if there is none.
        """
        if name not in self._named:
            raise NotFound(f"Cannot find iothread {name}")
        return self._named[name]

    def find(self, name: str) -> Loop | None:
        """The iothread of that name, or None."""
        return self._named.get(name)

    def named(self) -> list[Loop]:
        """All iothreads, the oldest first."""
        return list(self._named.values())

    def set_params(self, loop: Loop, params: LoopParams) -> None:
        """Change a running loop's parameters."""
        self._control.lib.by_loop_set_params(loop.native, self._native_params(params))
        loop.params = params

    def thread_id(self, loop: Loop) -> int:
        """The kernel's id of the loop's thread."""
        return int(self._control.lib.by_loop_thread_id(loop.native))

    async def remove(self, name: str) -> None:
        """End an iothread.

        :raises NotFound: if there is none of that name.
        :raises Busy: if a node or an export is served by it.
        """
        loop = self.get(name)
        if loop.users:
            raise Busy(f"object '{name}' is in use, can not be deleted")
        del self._named[name]
        await self._end(loop)

    async def close(self) -> None:
        """End all loops; nothing is served by them any more."""
        loops = [*self._named.values(), *([self._main] if self._main else [])]
        self._named.clear()
        self._main = None
        for loop in loops:
            await self._end(loop)

    def _start(self, name: str, params: LoopParams) -> Loop:
        ffi = self._control.ffi
        error = ffi.new("int *")
        native = self._control.lib.by_loop_create(name.encode(), self._native_params(params), error)
        if native == ffi.NULL:
            raise from_errno(error[0], f"Could not start iothread '{name}'")
        return Loop(name, native, params)

    async def _end(self, loop: Loop) -> None:
        await self._control.call(lambda tag: self._control.lib.by_loop_destroy(loop.native, tag))

    def _native_params(self, params: LoopParams) -> Any:
        return self._control.ffi.new("struct by_loop_params *", attrs.asdict(params))
