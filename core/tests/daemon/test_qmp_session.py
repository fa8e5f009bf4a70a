# SPDX-License-Identifier: Apache-2.0
"""Sessions and events without a daemon, on both back ends."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from blockyard.errors import BlockyardError
from blockyard.plugins import Registry
from blockyard.qmp.command import command
from blockyard.qmp.dispatcher import Dispatcher, current
from blockyard.qmp.event import EventBus, event
from blockyard.qmp.session import Session
from blockyard.schema import struct

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: Any) -> str:
    return str(request.param)


@event("NOISE")
@struct
class Noise:
    text: str


@event("LIMITED", interval=0.2, key="id")
@struct
class Limited:
    id: str
    number: int


@struct
class Nothing:
    pass


class Pipe:
    """A stream in memory; ``clogged`` stops it from taking output."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.clogged = False
        self.closed = anyio.Event()
        self._input, self._output = anyio.create_memory_object_stream[bytes](1000)

    def say(self, name: str, /, **more: Any) -> None:
        self._input.send_nowait(json.dumps({"execute": name, **more}).encode())

    async def receive(self) -> tuple[bytes, list[int]]:
        return await self._output.receive(), []

    async def send(self, data: bytes) -> None:
        if self.clogged:
            await anyio.sleep_forever()
        self.sent.append(json.loads(data))

    def hung_up(self) -> bool:
        return False

    async def aclose(self) -> None:
        self._input.close()
        self._output.close()
        self.closed.set()

    async def heard(self, count: int) -> list[dict[str, Any]]:
        """What was sent after the greeting, once there is so much of it."""
        with anyio.fail_after(5):
            while len(self.sent) < count + 1:
                await anyio.sleep(0.001)
        return self.sent[1:]


@asynccontextmanager
async def session(*commands: Any) -> AsyncIterator[tuple[Pipe, EventBus, list[str]]]:
    """A session in command mode, its bus, and a list for commands to write to."""
    registry, bus, pipe, notes = Registry(()), EventBus(), Pipe(), []  # type: ignore[var-annotated]

    @command("qmp_capabilities")
    async def negotiate(yard: Any, args: None) -> None:
        current().session.enable([])  # type: ignore[union-attr]

    for each in (negotiate, *commands):
        registry.add("commands", each.__qmp_command__.name, each)
    dispatcher = Dispatcher(notes, registry)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dispatcher.serve)
        tasks.start_soon(bus.serve)
        tasks.start_soon(Session(pipe, dispatcher, bus, {}).run)
        pipe.say("qmp_capabilities")
        await pipe.heard(1)
        yield pipe, bus, notes
        tasks.cancel_scope.cancel()


async def test_events_reach_a_session_with_name_data_and_time() -> None:
    async with session() as (pipe, bus, _):
        bus.emit(Noise(text="x"))
        message = (await pipe.heard(2))[1]

    assert (message["event"], message["data"]) == ("NOISE", {"text": "x"})
    assert {"seconds", "microseconds"} == set(message["timestamp"])


async def test_limited_events_are_delayed_and_only_the_last_is_kept() -> None:
    async with session() as (pipe, bus, _):
        for number in range(5):
            bus.emit(Limited(id="a", number=number))
        bus.emit(Limited(id="b", number=9))
        await pipe.heard(4)
        await anyio.sleep(0.3)
        found = [(m["data"]["id"], m["data"]["number"]) for m in pipe.sent if "event" in m]

    assert found == [("a", 0), ("b", 9), ("a", 4)]


async def test_a_client_that_does_not_read_its_events_is_disconnected() -> None:
    async with session() as (pipe, bus, _):
        pipe.clogged = True
        for _ in range(8):
            bus.emit(Noise(text="x" * (1 << 20)))
        with anyio.fail_after(5):
            await pipe.closed.wait()
        bus.emit(Noise(text="nobody is left"))


async def test_an_unexpected_exception_is_that_commands_error_alone() -> None:
    @command("broken")
    async def broken(yard: Any, args: None) -> None:
        raise ZeroDivisionError("oops")

    async with session(broken) as (pipe, _, _):
        pipe.say("broken")
        pipe.say("nix")
        answers = (await pipe.heard(3))[1:]

    assert answers[0]["error"]["desc"] == "Internal error: ZeroDivisionError: oops"
    assert answers[1]["error"]["class"] == "CommandNotFound"


async def test_a_command_that_has_begun_is_not_cancelled_with_its_session() -> None:
    begun, release, ended = anyio.Event(), anyio.Event(), anyio.Event()

    @command("slow")
    async def slow(notes: Any, args: None) -> None:
        begun.set()
        await release.wait()
        notes.append("done")
        ended.set()

    async with session(slow) as (pipe, bus, notes):
        pipe.say("slow")
        await begun.wait()
        pipe.clogged = True
        bus.emit(Noise(text="x" * (5 << 20)))
        await pipe.closed.wait()
        assert not notes
        release.set()
        with anyio.fail_after(5):
            await ended.wait()
        assert notes == ["done"]


async def test_errors_carry_their_class() -> None:
    class GoneError(BlockyardError):
        qmp_class = "DeviceNotFound"

    @command("gone")
    async def gone(yard: Any, args: None) -> None:
        raise GoneError("Device 'x' not found")

    async with session(gone) as (pipe, _, _):
        pipe.say("gone", id=1)
        answer = (await pipe.heard(2))[1]

    assert answer == {"id": 1, "error": {"class": "DeviceNotFound", "desc": "Device 'x' not found"}}
