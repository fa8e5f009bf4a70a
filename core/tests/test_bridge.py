# SPDX-License-Identifier: Apache-2.0
"""Drivers in Python, through the bridge."""

import asyncio
import errno
import logging
import threading

import anyio
import pytest

from blockyard.bridge import DriverThread
from blockyard.errors import BlockyardError, ImageIOError
from blockyard.node import DriverType, Opened, PythonDriver
from blockyard.plugins import Registry
from blockyard.request import BlockStatus, Limits, StatusFlags
from blockyard.yard import Yard

SIZE = 1 << 20


class Memory(PythonDriver):
    """Bytes; subclasses go wrong."""

    type = DriverType(name="memory", kind="protocol", options=None, implementation="")
    limits = Limits()

    async def open(self):
        self.memory = bytearray(SIZE)
        self.seen = set()
        return Opened(length=SIZE, limits=self.limits)

    async def read(self, offset, length):
        self.seen.add(threading.current_thread().name)
        return self.memory[offset : offset + length]

    async def write(self, offset, view, flags):
        self.memory[offset : offset + len(view)] = view


def registry_of(driver):
    registry = Registry(entry_points=[])
    record = DriverType(name="memory", kind="protocol", options=None, implementation=driver)
    driver.type = record
    registry.add("drivers", "memory", record)
    return registry


def run(driver, work, backend="asyncio", **options):
    """Open ``driver`` and run ``work(image)`` on it."""

    async def main():
        async with (
            Yard(registry=registry_of(driver)) as yard,
            await yard.open({"driver": "memory", **options}) as image,
        ):
            return await work(image)

    async def bounded():
        with anyio.fail_after(20):
            return await main()

    try:
        return anyio.run(bounded, backend=backend)
    finally:
        assert DriverThread._current is None, "the drivers' thread outlived the last driver"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_driver_reads_and_writes_on_its_own_thread(backend):
    async def work(image):
        await image.write(100, b"hello")
        assert await image.read(99, 7) == b"\0hello\0"
        return image.node.driver.seen

    assert run(Memory, work, backend) == {"python-drivers"}


def test_an_oserror_fails_the_request_with_its_errno():
    class Full(Memory):
        async def write(self, offset, view, flags):
            raise OSError(errno.ENOSPC, "full")

    async def work(image):
        with pytest.raises(ImageIOError) as caught:
            await image.write(0, b"x" * 512)
        assert caught.value.errno == errno.ENOSPC
        await image.read(0, 512)

    run(Full, work)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, MemoryError])
def test_any_other_exception_is_eio_and_logged(error, caplog):
    class Broken(Memory):
        async def read(self, offset, length):
            if offset == 0:
                raise error("no")
            return await super().read(offset, length)

    async def work(image):
        with pytest.raises(ImageIOError) as caught:
            await image.read(0, 512)
        assert caught.value.errno == errno.EIO
        assert await image.read(512, 4) == bytes(4)

    with caplog.at_level(logging.ERROR):
        run(Broken, work)
    assert "driver 'memory'" in caplog.text
    assert error.__name__ in caplog.text


def test_a_driver_that_cancels_itself_fails_only_that_request():
    class Cancelling(Memory):
        async def read(self, offset, length):
            if offset == 0:
                asyncio.current_task().cancel()
                await asyncio.sleep(0)
            return await super().read(offset, length)

    async def work(image):
        with pytest.raises(ImageIOError):
            await image.read(0, 512)
        await image.read(512, 512)

    run(Cancelling, work)


@pytest.mark.parametrize("answer", [b"", b"x" * 511, b"x" * 513, None, 7])
def test_a_wrong_answer_is_eio(answer):
    class Wrong(Memory):
        async def read(self, offset, length):
            return answer

    async def work(image):
        with pytest.raises(ImageIOError) as caught:
            await image.read(0, 512)
        assert caught.value.errno == errno.EIO

    run(Wrong, work)


def test_views_are_revoked_and_slices_of_them_harmless():
    kept = []

    class Keeping(Memory):
        async def read_into(self, offset, view):
            view[:] = b"r" * len(view)
            kept.append((view, view[:4]))

        async def write(self, offset, view, flags):
            kept.append((view, view[:4]))
            assert view.readonly

    async def work(image):
        assert await image.read(0, 512) == b"r" * 512
        await image.write(0, b"w" * 512)
        for view, part in kept:
            with pytest.raises(ValueError, match="released"):
                view[0]
            assert part.tobytes() in (b"rrrr", b"wwww")

    run(Keeping, work)


def test_no_more_requests_run_than_max_in_flight():
    class Counting(Memory):
        max_in_flight = 5
        running = most = 0

        async def read(self, offset, length):
            Counting.running += 1
            Counting.most = max(Counting.most, Counting.running)
            await asyncio.sleep(0.001)
            Counting.running -= 1
            return bytes(length)

    async def work(image):
        async with anyio.create_task_group() as tasks:
            for i in range(200):
                tasks.start_soon(image.read, i * 512, 512)

    run(Counting, work)
    assert Counting.most == 5


def test_limits_hold_for_python_drivers_too():
    class Coarse(Memory):
        limits = Limits(request_alignment=4096, max_transfer=16384)

        async def read(self, offset, length):
            assert offset % 4096 == 0 == length % 4096
            assert length <= 16384
            return await super().read(offset, length)

        async def write(self, offset, view, flags):
            assert offset % 4096 == 0 == len(view) % 4096
            assert len(view) <= 16384
            await super().write(offset, view, flags)

    async def work(image):
        data = bytes(range(1, 251)) * 400
        await image.write(1234, data)
        assert await image.read(1234, len(data)) == data

    run(Coarse, work)


def test_block_status_of_a_driver_is_answered():
    class Sparse(Memory):
        async def block_status(self, offset, length):
            flags = StatusFlags.ZERO | StatusFlags.ALLOCATED
            return BlockStatus(flags=flags, bytes=min(length, 4096))

    async def work(image):
        status = await image.block_status(0, SIZE)
        assert status.zero
        assert status.bytes == 4096

    run(Sparse, work)


@pytest.mark.parametrize("count", [0, -1, SIZE + 1])
def test_a_status_outside_the_range_is_eio(count):
    class Wrong(Memory):
        async def block_status(self, offset, length):
            return BlockStatus(flags=StatusFlags.DATA, bytes=count)

    async def work(image):
        with pytest.raises(ImageIOError):
            await image.block_status(0, SIZE)

    run(Wrong, work)


class ReadOnly(PythonDriver):
    type = Memory.type

    async def open(self):
        return Opened(length=SIZE)

    async def read(self, offset, length):
        return bytes(length)


def test_a_driver_that_writes_nothing_needs_read_only():
    async def work(image):
        return image.read_only

    with pytest.raises(BlockyardError, match="does not support writing"):
        run(ReadOnly, work)
    assert run(ReadOnly, work, **{"read-only": True})
    assert run(ReadOnly, work, **{"auto-read-only": True})


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOENT, "gone"), "No such file or directory"),
        (RuntimeError("strange"), "RuntimeError: strange"),
        (BlockyardError("as I say"), "as I say"),
    ],
)
def test_what_open_raises_is_a_blockyard_error(error, text):
    class Failing(Memory):
        async def open(self):
            raise error

    async def work(image):
        raise AssertionError("it opened")

    with pytest.raises(BlockyardError, match=text):
        run(Failing, work)


def test_open_and_close_run_on_the_drivers_thread():
    names = []

    class Noting(Memory):
        async def open(self):
            names.append(threading.current_thread().name)
            return await super().open()

        async def close(self):
            names.append(threading.current_thread().name)

    async def work(image):
        await image.read(0, 1)

    run(Noting, work)
    assert names == ["python-drivers"] * 2


def test_drain_waits_for_a_slow_driver_while_the_control_loop_lives():
    class Slow(Memory):
        async def read(self, offset, length):
            await asyncio.sleep(0.2)
            return bytes(length)

    async def work(image):
        ticks = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(image.read, 0, 512)
            await anyio.sleep(0.05)

            async def tick():
                nonlocal ticks
                while True:
                    ticks += 1
                    await anyio.sleep(0.01)

            tasks.start_soon(tick)
            async with image.drained():
                assert image.stats().in_flight == 0
            tasks.cancel_scope.cancel()
        assert ticks > 5

    run(Slow, work)


def test_a_reader_that_goes_away_leaves_its_request_to_end():
    class Slow(Memory):
        async def read(self, offset, length):
            await asyncio.sleep(0.05)
            return b"z" * length

    async def work(image):
        with anyio.move_on_after(0.01):
            await image.read(0, 4096)
        assert await image.read(0, 4) == b"zzzz"

    run(Slow, work)


def test_two_drivers_share_the_thread_and_each_other_outlives():
    async def main():
        async with Yard(registry=registry_of(Memory)) as yard:
            one = await yard.open(driver="memory")
            two = await yard.open(driver="memory")
            await one.write(0, b"1")
            await one.close()
            assert await two.read(0, 1) == b"\0"
            await two.close()
            assert DriverThread._current is None

    anyio.run(main)
