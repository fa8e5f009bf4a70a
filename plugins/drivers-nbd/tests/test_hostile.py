# SPDX-License-Identifier: Apache-2.0
"""Servers that break the protocol in transmission: the connection ends, and nothing else."""

import struct

import anyio
import pytest
from mock_server import (
    CHUNK,
    EXTENDED_MODE,
    SIMPLE_MODE,
    SIZE,
    STRUCTURED,
    Last,
    MockServer,
)

import servers
from blockyard.errors import ImageIOError
from blockyard.yard import Yard

LENGTH = 8192
HALF = LENGTH // 2
DATA = bytes(range(256)) * (LENGTH // 256)
ERROR = struct.pack(">IH", 5, 0)


def _offset(offset, data):
    return struct.pack(">Q", offset) + data


#: What a read of 8192 bytes at 4096 is answered, in structured mode.
READS = {
    "no magic": lambda c: bytes(64),
    "another magic": lambda c: c.simple(magic=0x12345678),
    "extended without asking": lambda c: c.extended(0),
    "simple for a read": lambda c: c.simple(DATA),
    "simple error for a read": lambda c: c.simple(error=5),
    "another cookie": lambda c: c.chunk(0, cookie=c.cookie ^ 1),
    "a cookie of another turn": lambda c: c.chunk(0, cookie=c.cookie + (1 << 32)),
    "a cookie out of range": lambda c: c.chunk(0, cookie=c.cookie + (1 << 20)),
    "unknown flags": lambda c: c.chunk(0, flags=3),
    "an unknown type": lambda c: c.chunk(77),
    "nothing": lambda c: c.chunk(0),
    "nothing with data": lambda c: c.chunk(0, b"abcd"),
    "nothing that goes on": lambda c: c.chunk(0, flags=0),
    "a status": lambda c: c.extents((LENGTH, 0)),
    "data without an offset": lambda c: c.chunk(1, b"1234"),
    "no data": lambda c: c.chunk(1, bytes(8)),
    "data before": lambda c: c.data(DATA, offset=c.offset - 1),
    "data behind": lambda c: c.data(DATA, offset=c.offset + 1),
    "data far behind": lambda c: c.data(DATA, offset=(1 << 64) - 1),
    "too much data": lambda c: Last(c.chunk(1, _offset(c.offset, DATA), length=1 << 31)),
    "twice the same": lambda c: c.data(DATA[:HALF], flags=0) * 2,
    "twice a part": lambda c: (
        c.data(DATA[:HALF], flags=0) + c.data(DATA[:HALF], offset=c.offset + HALF - 1)
    ),
    "a hole in the middle of it": lambda c: c.data(DATA[:-1], flags=0) + c.chunk(0),
    "half of it": lambda c: c.data(DATA[:HALF]),
    "no bytes of a hole": lambda c: c.hole(0),
    "a long hole": lambda c: c.hole(LENGTH + 1),
    "a hole that is none": lambda c: c.chunk(2, bytes(11)),
    "a hole over data": lambda c: c.data(DATA, flags=0) + c.hole(1),
    "a short error": lambda c: c.chunk(0x8001, b"abc"),
    "an error that is none": lambda c: c.chunk(0x8001, struct.pack(">IH", 0, 0)),
    "an error with a long text": lambda c: c.chunk(0x8001, struct.pack(">IH", 5, 10) + b"abc"),
    "a huge error": lambda c: c.chunk(0x8001, ERROR, length=1 << 31),
    "errors without an end": lambda c: c.chunk(0x8001, ERROR, flags=0) * 100000,
    "the end": lambda c: None,
    "a half header": lambda c: Last(struct.pack(">IH", CHUNK, 1)),
}

#: The same in the mode without structured replies.
SIMPLE_READS = {
    "a chunk": lambda c: c.data(DATA),
    "another cookie": lambda c: c.simple(DATA, cookie=c.cookie + 1),
    "the end in the data": lambda c: Last(c.simple(DATA[:100])),
}

#: In the mode with extended headers.
EXTENDED_READS = {
    "simple": lambda c: c.simple(DATA),
    "a short chunk": lambda c: c.data(DATA),
    "a huge length": lambda c: Last(c.extended(1, _offset(c.offset, DATA), length=1 << 63)),
}

#: What a question of 64 KiB is answered.
STATUSES = {
    "nothing": lambda c: c.chunk(0),
    "simple": lambda c: c.simple(),
    "data": lambda c: c.data(DATA),
    "no extent": lambda c: c.extents(),
    "half an extent": lambda c: c.chunk(5, bytes(4 + 7)),
    "an empty extent": lambda c: c.extents((0, 0)),
    "another context": lambda c: c.extents((65536, 0), number=2),
    "twice": lambda c: c.extents((65536, 0), flags=0) * 2,
    "extended": lambda c: c.chunk(6, struct.pack(">IIQQ", 1, 1, 65536, 0)),
    "a huge one": lambda c: c.chunk(5, bytes(4), length=(1 << 31) + 4),
}

EXTENDED_STATUSES = {
    "another count": lambda c: c.extended(6, struct.pack(">IIQQ", 1, 2, 65536, 0)),
    "the short form": lambda c: c.extended(5, struct.pack(">III", 1, 65536, 0)),
    "lengths that wrap": lambda c: c.extended(
        6, struct.pack(">IIQQQQ", 1, 2, (1 << 64) - 1, 0, (1 << 64) - 1, 0)
    ),
}


class _Bench:
    """A yard with a node on the server under test, and another one that must stay well."""

    def __init__(self, server, good, **options):
        self.options = server.options(**{"read-only": True, **options})
        self.good = good

    async def run(self, attack):
        async with (
            Yard() as yard,
            await yard.open(self.good.options()) as other,
            await yard.open(self.options) as image,
        ):
            await other.write(0, DATA)
            with anyio.fail_after(60):
                await attack(image)
                assert await other.read(0, LENGTH) == DATA


async def _read_fails(image):
    with pytest.raises(ImageIOError) as caught:
        await image.read(4096, LENGTH)
    assert caught.value.errno == 5


async def _status_fails(image):
    with pytest.raises(ImageIOError) as caught:
        await image.block_status(65536, 65536)
    assert caught.value.errno == 5


CASES = [
    *(("structured", STRUCTURED, 0, name, answer) for name, answer in READS.items()),
    *(("simple", SIMPLE_MODE, 0, name, answer) for name, answer in SIMPLE_READS.items()),
    *(("extended", EXTENDED_MODE, 0, name, answer) for name, answer in EXTENDED_READS.items()),
    *(("status", STRUCTURED, 7, name, answer) for name, answer in STATUSES.items()),
    *(("extended status", EXTENDED_MODE, 7, n, answer) for n, answer in EXTENDED_STATUSES.items()),
]


@pytest.mark.parametrize(
    ("answers", "kind", "answer"),
    [pytest.param(mode, kind, answer, id=f"{part}-{n}") for part, mode, kind, n, answer in CASES],
)
def test_a_broken_reply_costs_the_connection_and_nothing_else(tmp_path, answers, kind, answer):
    good = servers.nbdkit(tmp_path, "memory", f"{SIZE}")
    with MockServer(tmp_path / "mock", answers, answer) as server:
        anyio.run(_Bench(server, good).run, _status_fails if kind == 7 else _read_fails)
        assert [command.type for command in server.commands] == [kind]


@pytest.mark.parametrize(
    ("answers", "answer"),
    [
        (STRUCTURED, lambda c: c.data(DATA) + c.data(DATA)),
        (SIMPLE_MODE, lambda c: c.simple(DATA + bytes(16))),
    ],
)
def test_what_comes_behind_a_good_reply_costs_the_connection(tmp_path, answers, answer):
    async def attack(image):
        assert await image.read(4096, LENGTH) == DATA
        while server.clients < 2:
            await anyio.sleep(0.01)

    good = servers.nbdkit(tmp_path, "memory", f"{SIZE}")
    with MockServer(tmp_path / "mock", answers, answer) as server:
        anyio.run(_Bench(server, good).run, attack)


def test_what_was_not_under_way_is_served_on_a_new_connection(tmp_path):
    turn = []

    def serve(command):
        turn.append(command)
        return bytes(64) if len(turn) == 1 else command.data(DATA)

    async def attack(image):
        await _read_fails(image)
        assert await image.read(4096, LENGTH) == DATA

    good = servers.nbdkit(tmp_path, "memory", f"{SIZE}")
    with MockServer(tmp_path / "mock", STRUCTURED, serve) as server:
        anyio.run(_Bench(server, good, **{"reconnect-delay": 30}).run, attack)
        assert server.clients == 2


def test_a_server_that_hangs_up_at_every_request_is_not_tried_for_ever(tmp_path):
    """Each request sees so many connections die, and then fails."""

    def serve(command):
        return None

    async def attack(image):
        from blockyard_drivers_nbd import link

        before, link._PAUSE_MOST = link._PAUSE_MOST, 0.01
        try:
            await _read_fails(image)
        finally:
            link._PAUSE_MOST = before

    good = servers.nbdkit(tmp_path, "memory", f"{SIZE}")
    with MockServer(tmp_path / "mock", STRUCTURED, serve) as server:
        anyio.run(_Bench(server, good, **{"reconnect-delay": 3600}).run, attack)
        assert len(server.commands) == 32


def test_pieces_may_come_in_any_order_and_be_holes(tmp_path):
    def serve(command):
        whole = b"".join(
            command.data(DATA[i : i + 512], offset=command.offset + i, flags=0)
            for i in range(LENGTH - 512, 0, -1024)
        )
        holes = b"".join(
            command.hole(512, offset=command.offset + i, flags=0) for i in range(0, LENGTH, 1024)
        )
        return whole + holes + command.chunk(0)

    async def attack(image):
        expected = bytearray(DATA)
        for i in range(0, LENGTH, 1024):
            expected[i : i + 512] = bytes(512)
        assert await image.read(4096, LENGTH) == expected

    good = servers.nbdkit(tmp_path, "memory", f"{SIZE}")
    with MockServer(tmp_path / "mock", STRUCTURED, serve) as server:
        anyio.run(_Bench(server, good).run, attack)
        assert server.clients == 1


@pytest.mark.parametrize(
    ("number", "errno"),
    [(1, 1), (5, 5), (12, 12), (22, 22), (28, 28), (75, 75), (95, 95), (108, 108), (4711, 22)],
)
def test_errors_are_passed_on_and_the_connection_stays(tmp_path, number, errno):
    def serve(command):
        if command.type == 0:
            text = struct.pack(">IH", number, 4) + b"text"
            offset = struct.pack(">IHQ", number, 0, command.offset)
            return command.chunk(0x8001, text, flags=0) + command.chunk(0x8002, offset)
        return command.simple(error=number)

    async def attack(image):
        for call in (image.read(4096, LENGTH), image.write(4096, DATA), image.flush()):
            with pytest.raises(ImageIOError) as caught:
                await call
            assert caught.value.errno == errno

    good = servers.nbdkit(tmp_path, "memory", f"{SIZE}")
    with MockServer(tmp_path / "mock", STRUCTURED, serve) as server:
        anyio.run(_Bench(server, good, **{"read-only": False}).run, attack)
        assert server.clients == 1
