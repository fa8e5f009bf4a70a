# SPDX-License-Identifier: Apache-2.0
"""Drivers in Python that raise and answer what they must not, at open and close."""

import asyncio
import logging

import anyio
import pytest

from blockyard.bridge import DriverThread
from blockyard.errors import BlockyardError
from blockyard.node import DriverType, Opened, PythonDriver
from blockyard.plugins import Registry
from blockyard.yard import Yard

ENDINGS = [RuntimeError("boom"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()]


def driver(opening=None, closing=None):
    """A driver class: what its ``open`` raises or returns, what its ``close`` raises."""

    class Bad(PythonDriver):
        async def open(self):
            if isinstance(opening, BaseException):
                raise opening
            return opening

        async def close(self):
            if closing:
                raise closing

        async def read(self, offset, length):
            return b"r" * length

    return Bad


def registry_of(**drivers):
    registry = Registry(entry_points=[])
    for name, each in drivers.items():
        each.type = DriverType(name=name, kind="protocol", options=None, implementation=each)
        registry.add("drivers", name, each.type)
    return registry


async def read_good(yard):
    async with await yard.open({"driver": "good", "read-only": True}) as image:
        return await image.read(0, 4)


def run(work, bad):
    """``work(yard)`` with a driver ``bad`` and one that is good."""

    async def main():
        registry = registry_of(bad=bad, good=driver(Opened(length=4096)))
        with anyio.fail_after(20):
            async with Yard(registry=registry) as yard:
                await work(yard)
        assert DriverThread._current is None

    anyio.run(main)


@pytest.mark.parametrize("error", ENDINGS, ids=lambda error: type(error).__name__)
def test_whatever_open_raises_the_others_live(error):
    async def work(yard):
        async with await yard.open({"driver": "good", "read-only": True}) as other:
            with pytest.raises(BlockyardError, match=f"'bad': {type(error).__name__}"):
                await yard.open({"driver": "bad", "read-only": True})
            assert await other.read(0, 4) == b"rrrr"
        assert await read_good(yard) == b"rrrr"

    run(work, driver(error))


@pytest.mark.parametrize(
    "answer", [None, "x", Opened(length=-1), Opened(length=1 << 63), Opened(length="x")]
)
def test_what_open_answers_is_checked(answer):
    async def work(yard):
        with pytest.raises(BlockyardError, match="Could not open driver 'bad': .*open returned"):
            await yard.open({"driver": "bad", "read-only": True})
        assert await read_good(yard) == b"rrrr"

    run(work, driver(answer))


@pytest.mark.parametrize("error", ENDINGS, ids=lambda error: type(error).__name__)
def test_a_close_that_raises_closes_and_is_logged(error, caplog):
    async def work(yard):
        async with await yard.open({"driver": "bad", "read-only": True}) as image:
            assert await image.read(0, 4) == b"rrrr"
        assert await read_good(yard) == b"rrrr"

    with caplog.at_level(logging.ERROR):
        run(work, driver(Opened(length=4096), error))
    assert "driver 'bad' failed in close" in caplog.text
