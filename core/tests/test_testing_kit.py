# SPDX-License-Identifier: Apache-2.0
"""The conformance kit finds what is wrong, and only that."""

from typing import ClassVar

import anyio
import pytest

from blockyard.errors import from_errno
from blockyard.node import DriverType, Opened, PythonDriver
from blockyard.plugins import Registry
from blockyard.request import BlockStatus, StatusFlags
from blockyard.testing import Subject, checks, run_conformance, run_one


class Right(PythonDriver):
    """A disk in memory, as it should be."""

    type = DriverType(name="memory", kind="protocol", options=None, implementation="")

    async def open(self):
        self.memory = bytearray(1 << 20)
        return Opened(length=len(self.memory))

    async def read(self, offset, length):
        return bytes(self.memory[offset : offset + length])

    async def write(self, offset, view, flags):
        self.memory[offset : offset + len(view)] = view

    async def truncate(self, length, prealloc, exact):
        del self.memory[length:]
        self.memory.extend(bytes(length - len(self.memory)))


class Corrupting(Right):
    async def write(self, offset, view, flags):
        data = bytearray(view)
        if offset <= 70000 < offset + len(data):
            data[70000 - offset] ^= 1
        await super().write(offset, data, flags)


class Truncating(Right):
    async def write(self, offset, view, flags):
        await super().write(offset, view[: 128 << 10], flags)


class Wrapping(Right):
    async def read(self, offset, length):
        return bytes(length) if length > 256 << 10 else await super().read(offset, length)


class Lazy(Right):
    """Writes arrive later than they were acknowledged."""

    async def write(self, offset, view, flags):
        data = bytes(view)

        async def later():
            await anyio.sleep(0.02)
            self.memory[offset : offset + len(data)] = data

        import asyncio

        self.task = asyncio.create_task(later())


class Mixing(Right):
    """Writes in two steps with others between."""

    async def write(self, offset, view, flags):
        await super().write(offset, view[:100], flags)
        await anyio.sleep(0.002 * (view[0] % 5))
        await super().write(offset + 100, view[100:], flags)


class Claiming(Right):
    async def block_status(self, offset, length):
        return BlockStatus(flags=StatusFlags.ZERO, bytes=length)


class Stuck(Right):
    async def block_status(self, offset, length):
        return BlockStatus(flags=StatusFlags.DATA, bytes=0)


class NoZeroes(Right):
    async def write_zeroes(self, offset, length, flags):
        """Does nothing."""


class Eager(Right):
    async def discard(self, offset, length):
        self.memory[max(0, offset - 512) : offset + length] = bytes(length + min(512, offset))


class Stale(Right):
    """A shrunk disk keeps its tail."""

    async def truncate(self, length, prealloc, exact):
        self.memory.extend(bytes(max(0, length - len(self.memory))))


class Leaking(Right):
    async def open(self):
        self.file = open("/dev/null", "rb")  # noqa: SIM115
        self.kept.append(self.file)
        return await super().open()

    kept: ClassVar[list] = []


class Growing(Right):
    async def read(self, offset, length):
        if offset % 3 == 1:
            raise from_errno(5)
        return await super().read(offset, length)


FAULTS = {
    Corrupting: "large_requests_are_whole",
    Truncating: "large_requests_are_whole",
    Wrapping: "large_requests_are_whole",
    Lazy: "what_is_written_is_read_back",
    Mixing: "overlapping_writes_leave_one_of_them",
    Claiming: "data_is_not_called_zero",
    Stuck: "status_covers_the_node",
    NoZeroes: "zeroes_read_as_zeroes",
    Eager: "discarding_leaves_the_neighbours",
    Stale: "shrinking_refuses_what_is_gone",
    Leaking: "closing_leaves_nothing_behind",
    Growing: "unaligned_requests_touch_only_their_range",
}


def subject_of(driver, **fields):
    record = DriverType(name="memory", kind="protocol", options=None, implementation=driver)
    driver.type = record
    registry = Registry(entry_points=[])
    registry.add("drivers", "memory", record)
    return Subject(
        make=lambda folder, size: {"driver": "memory"}, registry=registry, persists=False, **fields
    )


def one(driver, name):
    check = next(check for check in checks() if check.name == name)
    return anyio.run(run_one, check, subject_of(driver))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_right_driver_passes(backend):
    report = run_conformance(subject_of(Right), backend=backend)
    assert report.ok, report.text()
    assert report.count("passed") > 35


@pytest.mark.parametrize("driver", FAULTS, ids=lambda d: d.__name__)
def test_a_fault_is_found_by_the_check_for_it(driver):
    outcome = one(driver, FAULTS[driver])
    assert outcome.state == "failed"
    assert one(Right, FAULTS[driver]).state == "passed"


def test_a_driver_that_cannot_be_opened_fails_every_check():
    class Broken(Right):
        async def open(self):
            raise from_errno(2, "no disk")

    outcome = one(Broken, "what_is_written_is_read_back")
    assert outcome.state == "failed"
    assert "No such file" in outcome.reason


def test_a_driver_that_only_reads_skips_what_writes():
    class Reader(Right):
        write = PythonDriver.write
        truncate = PythonDriver.truncate

    subject = subject_of(Reader)
    make = subject.make
    report = run_conformance(
        Subject(
            make=lambda folder, size: {**make(folder, size), "read-only": True},
            registry=subject.registry,
            refused=({"driver": "memory", "node-name": "-"},),
        )
    )
    assert report.ok, report.text()
    assert report.count("skipped") > 15


def test_the_list_of_checks_says_what_each_holds_to():
    listed = checks()
    assert len({(c.subject, c.name) for c in listed}) == len(listed) > 40
    assert all(c.doc.endswith(".") for c in listed)
