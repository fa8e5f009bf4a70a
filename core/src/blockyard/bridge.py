# SPDX-License-Identifier: Apache-2.0
"""Serving requests to drivers that are written in Python.

All Python drivers of the process share one thread with one asyncio event loop,
which is never the control loop: a driver that is slow or wrong delays only its
like.  Requests come from ``csrc/bridge.c`` in batches, each becomes a task, and
each is answered exactly once whatever the driver does.

Payloads are copied at the border, so the memory that a driver sees belongs to
Python: a view is revoked when its request completes, and a slice of it that the
driver kept by mistake names stale bytes, never somebody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import anyio.to_thread
import attrs

from blockyard.errors import BlockyardError, ImageIOError, Unsupported, from_os_error
from blockyard.inner import Children, ThreadControl
from blockyard.node import Opened, PythonDriver
from blockyard.request import Op, Preallocation, RequestFlags, StatusFlags

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from blockyard.request import BlockStatus

__all__ = ["Bridge", "DriverThread", "close_driver", "open_driver"]

_T = TypeVar("_T")
_BATCH = 64
#: Seconds between two tracebacks of one driver in the log.
_LOG_INTERVAL = 1.0
#: The method that a driver overrides to serve an operation.
_METHODS = {
    Op.WRITE: "write",
    Op.FLUSH: "flush",
    Op.DISCARD: "discard",
    Op.WRITE_ZEROES: "write_zeroes",
    Op.TRUNCATE: "truncate",
    Op.BLOCK_STATUS: "block_status",
}

#: What would end the thread or the task, were it let through.
_ENDINGS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)

_log = logging.getLogger(__name__)


class DriverThread:
    """The thread and event loop of the process's Python drivers.

    It runs from the first :meth:`acquire` to the last :meth:`release`.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _current: ClassVar[DriverThread | None] = None

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        #: For requests of drivers to their children.
        self.control = ThreadControl()
        self._users = 0
        # A daemon: a program that forgets to close its nodes can still end.
        self._thread = threading.Thread(target=self._run, name="python-drivers", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls) -> DriverThread:
        """The running thread, started if need be; :meth:`release` it once."""
        with cls._lock:
            if cls._current is None:
                cls._current = cls()
            cls._current._users += 1
            return cls._current

    def release(self) -> None:
        """The counterpart of :meth:`acquire`; the last one ends the thread and waits."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            DriverThread._current = None
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run ``work`` on the drivers' loop and wait for it, from any event loop.

        Cancelled, it waits all the same.
        """
        # A context of its own: the caller's may say that it runs on trio.
        start = asyncio.run_coroutine_threadsafe
        future = contextvars.Context().run(start, work, self.loop)
        with anyio.CancelScope(shield=True):
            result = await anyio.to_thread.run_sync(future.result)
        # Out here, so that a type checker sees that it is always there.
        return result  # noqa: RET504

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self._cancel_rest())
            self.loop.run_until_complete(self.control.close())
            self.loop.close()

    async def _cancel_rest(self) -> None:
        """End what drivers left running."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


@attrs.define(eq=False)
class Bridge:
    """One driver's requests: native queue in, method calls out."""

    driver: PythonDriver
    thread: DriverThread
    native: Any = attrs.field(init=False)
    _ffi: Any = attrs.field(init=False)
    _lib: Any = attrs.field(init=False)
    _batch: Any = attrs.field(init=False)
    _serve: dict[int, Callable[[Any], Coroutine[Any, Any, Any]]] = attrs.field(init=False)
    _tasks: set[asyncio.Task[None]] = attrs.field(factory=set)
    _logged: float = float("-inf")

    def __attrs_post_init__(self) -> None:
        from blockyard._native import ffi, lib

        self._ffi, self._lib = ffi, lib
        self._batch = ffi.new("struct by_bridge_request[]", _BATCH)
        self._serve = {
            Op.READ: self._read_into if self._overrides("read_into") else self._read,
            Op.WRITE: self._write,
            Op.FLUSH: self._flush,
            Op.DISCARD: self._discard,
            Op.WRITE_ZEROES: self._write_zeroes,
            Op.TRUNCATE: self._truncate,
            Op.BLOCK_STATUS: self._block_status,
        }
        self.native = lib.by_bridge_create(
            self.driver.type.name.encode(), 0, self._served(), self._flags(),
            max(1, self.driver.max_in_flight),
        )  # fmt: skip
        if self.native == ffi.NULL:
            raise ImageIOError("Could not allocate memory for the driver", errno.ENOMEM)

    def _overrides(self, method: str) -> bool:
        return getattr(type(self.driver), method) is not getattr(PythonDriver, method)

    def _served(self) -> int:
        served = [Op.READ, *(op for op, name in _METHODS.items() if self._overrides(name))]
        return sum(1 << op for op in served)

    def _flags(self) -> list[int]:
        # WRITE and WRITE_ZEROES alike: what a driver cannot do itself core emulates.
        flags = [0] * len(Op)
        flags[Op.WRITE] = int(self.driver.write_flags)
        flags[Op.WRITE_ZEROES] = int(self.driver.write_zeroes_flags)
        return flags

    @property
    def writable(self) -> bool:
        """Whether the driver serves anything that changes the image."""
        changing = Op.WRITE, Op.DISCARD, Op.WRITE_ZEROES, Op.TRUNCATE
        return any(self._overrides(_METHODS[op]) for op in changing)

    def start(self) -> None:
        """Listen for requests.  On the drivers' loop."""
        self.thread.loop.add_reader(self._lib.by_bridge_fd(self.native), self._take)

    def stop(self) -> None:
        """Listen no more; nothing is in flight.  On the drivers' loop."""
        self.thread.loop.remove_reader(self._lib.by_bridge_fd(self.native))

    def free(self) -> None:
        """Give the native half back, after the node that used it is gone."""
        self._lib.by_bridge_free(self.native)

    def _take(self) -> None:
        batch = self._batch
        for i in range(self._lib.by_bridge_take(self.native, batch, _BATCH)):
            # A copy: the batch is used again before the task is done.
            request = self._ffi.new("struct by_bridge_request *", batch[i])
            task = self.thread.loop.create_task(self._answer(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Any) -> None:
        """Serve one request and complete it once, whatever happens."""
        result, status = -errno.EIO, None
        try:
            status = await self._serve[request.op](request)
            result = 0
        except (Exception, *_ENDINGS) as error:
            # Even SystemExit: a driver ends neither its thread nor the daemon.
            result = self._failure(request, error)
        finally:
            if status is None:
                self._lib.by_bridge_complete(self.native, request.handle, result)
            else:
                self._lib.by_bridge_complete_status(self.native, request.handle, status)

    def _failure(self, request: Any, error: BaseException) -> int:
        """The errno to answer with; what is not an errno is a fault and is logged."""
        if isinstance(error, Unsupported):
            return -errno.ENOTSUP
        if isinstance(error, OSError) and error.errno:
            return -abs(error.errno)
        now = time.monotonic()
        if now - self._logged >= _LOG_INTERVAL:
            self._logged = now
            _log.error(
                "driver '%s' of node '%s' failed in %s",
                self.driver.type.name, self.driver.node.name, Op(request.op).name.lower(),
                exc_info=error,
            )  # fmt: skip
        return -errno.EIO

    async def _read(self, request: Any) -> None:
        length = request.bytes
        with memoryview(await self.driver.read(request.offset, length)) as data:
            if data.nbytes != length:
                raise RuntimeError(f"read returned {data.nbytes} bytes instead of {length}")
            self._ffi.memmove(request.buffer, data, length)

    async def _read_into(self, request: Any) -> None:
        memory = bytearray(request.bytes)
        view = memoryview(memory)
        try:
            await self.driver.read_into(request.offset, view)
        finally:
            _revoke(view)
        self._ffi.memmove(request.buffer, memory, len(memory))

    async def _write(self, request: Any) -> None:
        view = memoryview(self._ffi.buffer(request.buffer, request.bytes)[:])
        try:
            await self.driver.write(request.offset, view, RequestFlags(request.flags))
        finally:
            _revoke(view)

    async def _flush(self, request: Any) -> None:
        await self.driver.flush()

    async def _discard(self, request: Any) -> None:
        await self.driver.discard(request.offset, request.bytes)

    async def _write_zeroes(self, request: Any) -> None:
        flags = RequestFlags(request.flags)
        await self.driver.write_zeroes(request.offset, request.bytes, flags)

    async def _truncate(self, request: Any) -> None:
        prealloc = Preallocation(request.prealloc)
        await self.driver.truncate(request.offset, prealloc, bool(request.exact))

    async def _block_status(self, request: Any) -> Any:
        answer = await self.driver.block_status(request.offset, request.bytes)
        return self._native_status(answer, request.bytes)

    def _native_status(self, answer: BlockStatus, asked: int) -> Any:
        if not 0 < answer.bytes <= asked:
            raise RuntimeError(f"block_status answered for {answer.bytes} bytes of {asked}")
        flags, owner = answer.flags, getattr(answer.owner, "native", None)
        if answer.owner is not None and owner is None:
            flags &= ~(StatusFlags.OFFSET | StatusFlags.RECURSE)
        return self._ffi.new(
            "struct by_status *",
            {
                "flags": int(flags),
                "depth": answer.depth,
                "bytes": answer.bytes,
                "host_offset": answer.host_offset,
                "owner": int(self._ffi.cast("uintptr_t", owner)) if owner else 0,
            },
        )


def _revoke(view: memoryview) -> None:
    # A driver may have wrapped it (an array over the view): harmless, the memory is
    # Python's and lives as long as the wrapper.
    with contextlib.suppress(BufferError):
        view.release()


async def open_driver(driver: PythonDriver) -> Opened:
    """Open ``driver`` on the drivers' thread and connect its requests to it.

    Its ``open`` may leave ``Opened.ops`` and ``state`` at 0: they are the bridge's.

    :raises BlockyardError: what the driver's ``open`` raised, or if the node is
        writable, not auto-read-only, and the driver does not write.
    """
    thread = await anyio.to_thread.run_sync(DriverThread.acquire)
    bridge = None
    try:
        driver.children = Children(driver, thread.control)
        opened = await thread.run(_open(driver))
        bridge = Bridge(driver, thread)
        if not bridge.writable:
            name = driver.type.name
            driver.node.apply_auto_read_only(f"Block driver '{name}' does not support writing")
        await thread.run(_call(bridge.start))
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _undo(thread, driver, bridge)
        raise
    driver.bridge = bridge
    ops = bridge._lib.by_bridge_ops(bridge.native)
    return attrs.evolve(opened, ops=_address(bridge, ops), state=_address(bridge, bridge.native))


async def _open(driver: PythonDriver) -> Opened:
    """``driver.open()``; what is no error of ours becomes one, at this border."""
    name = driver.type.name
    try:
        opened = await driver.open()
        _check_opened(opened)
    except BlockyardError:
        raise
    except OSError as error:
        raise from_os_error(error, f"Could not open driver '{name}'") from error
    except (Exception, *_ENDINGS) as error:
        _log.exception("driver '%s' failed in open", name)
        text = f"Could not open driver '{name}': {type(error).__name__}: {error}"
        raise BlockyardError(text) from error
    return opened


def _check_opened(opened: Any) -> None:
    if not isinstance(opened, Opened):
        raise TypeError(f"open returned {type(opened).__name__} instead of Opened")
    if not isinstance(opened.length, int) or not 0 <= opened.length < 1 << 63:
        raise ValueError(f"open returned the length {opened.length!r}")


async def _close(driver: PythonDriver) -> None:
    """``driver.close()``; the node goes whatever it raises."""
    try:
        await driver.close()
    except (Exception, *_ENDINGS):
        _log.exception("driver '%s' failed in close", driver.type.name)


async def _undo(thread: DriverThread, driver: PythonDriver, bridge: Bridge | None) -> None:
    try:
        if bridge is not None:
            # The driver was open already.
            await thread.run(_close(driver))
    finally:
        await _give_up(thread, driver, bridge)


async def _give_up(thread: DriverThread, driver: PythonDriver, bridge: Bridge | None) -> None:
    if bridge is not None:
        bridge.free()
    try:
        await thread.run(driver.children.close())
    finally:
        await anyio.to_thread.run_sync(thread.release)


async def close_driver(driver: PythonDriver) -> None:
    """The counterpart of :func:`open_driver`; the native node is gone."""
    bridge: Bridge = driver.bridge
    try:
        await bridge.thread.run(_call(bridge.stop))
        await bridge.thread.run(_close(driver))
    finally:
        with anyio.CancelScope(shield=True):
            await _give_up(bridge.thread, driver, bridge)


async def _call(function: Callable[[], None]) -> None:
    function()


def _address(bridge: Bridge, pointer: Any) -> int:
    return int(bridge._ffi.cast("uintptr_t", pointer))
