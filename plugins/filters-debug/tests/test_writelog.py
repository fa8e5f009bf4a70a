# SPDX-License-Identifier: Apache-2.0
"""Logs to append to that are none, or lie."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_model import DISCARD, MARK, header, superblock
from log_steps import logged, qemu_io

from blockyard.errors import BlockyardError, InvalidOption
from blockyard_filters_debug.writelog import Position, find_end

if TYPE_CHECKING:
    from pathlib import Path


class Memory:
    """A log in memory that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads = 0

    async def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(self.data)
        self.reads += 1
        return self.data[offset : offset + length]


def end_of(data: bytes) -> Position:
    access: Any = Memory(data)
    return anyio.run(find_end, access, len(data))


WRITTEN = header(0, 1) + bytes(512)


@pytest.mark.parametrize(
    ("log", "end"),
    [
        (b"", Position(512)),
        (superblock(0), Position(512)),
        (superblock(1) + WRITTEN, Position(512, 3, 1)),
        (superblock(1) + WRITTEN + WRITTEN, Position(512, 3, 1)),
        (superblock(2) + header(0, 1 << 63, DISCARD) + WRITTEN, Position(512, 4, 2)),
        (superblock(1) + header(0, 0, MARK, 100), Position(512, 2, 1)),
        (superblock(1, 4096).ljust(4096, b"\0") + header(0, 0, MARK), Position(4096, 2, 1)),
        (superblock(300) + WRITTEN * 300, Position(512, 601, 300)),
    ],
    ids=range(8),
)
def test_where_a_log_goes_on(log: bytes, end: Position) -> None:
    assert end_of(log) == end


HOSTILE = {
    "nothing": (bytes(512), "Invalid log superblock magic"),
    "short": (superblock(1)[:5], "Invalid log superblock magic"),
    "magic": (superblock(1, magic=1, version=2), "Invalid log superblock magic"),
    "version": (superblock(1, size=0, version=2), "Unsupported log version 2"),
    "late version": (superblock(1, version=1 << 63), f"Unsupported log version {1 << 63}"),
    "no sectors": (superblock(1, size=0), "Invalid log sector size 0"),
    "odd sectors": (superblock(1, size=1000), "Invalid log sector size 1000"),
    "huge sectors": (superblock(1, size=1 << 24), "Invalid log sector size 16777216"),
    "flags": (superblock(1) + header(0, 0, 16), "Invalid flags 0x10 in log entry 0"),
    "more flags": (superblock(2) + WRITTEN + header(0, 0, 1 << 63), ""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_qemu_refuses_too(name: str, tmp_path: Path, qemu: Any) -> None:
    log, text = HOSTILE[name]
    with pytest.raises(InvalidOption) as raised:
        end_of(log)
    logged(tmp_path)
    (tmp_path / "log").write_bytes(log)
    assert str(raised.value) == qemu_io(qemu.program, tmp_path, [], **{"log-append": "on"})
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("log", "number"),
    [
        (superblock(1), 0),
        (superblock(2) + WRITTEN, 1),
        (superblock(1) + header(0, 2) + bytes(512), 0),
        (superblock(1) + header(0, (1 << 64) - 1), 0),
        (superblock(2) + header(0, 1 << 63) + WRITTEN, 0),
        (superblock(1 << 60) + header(0, 0, MARK) * 1000, 1000),
        (superblock((1 << 64) - 1) + header(0, 9, DISCARD), 1),
    ],
    ids=range(7),
)
def test_entries_that_are_not_there(log: bytes, number: int) -> None:
    with pytest.raises(InvalidOption) as raised:
        end_of(log)
    assert str(raised.value) == f"Log entry {number} is beyond the end of the log"


def test_a_claim_takes_no_more_steps_than_the_log_has_sectors() -> None:
    log = Memory(superblock(1 << 60) + header(0, 0, MARK) * 8192)
    with pytest.raises(InvalidOption):
        anyio.run(find_end, log, len(log.data))
    assert log.reads < 70


def test_holes_are_not_followed() -> None:
    log = Memory(superblock(1 << 60) + WRITTEN + bytes(4 << 20))
    with pytest.raises(InvalidOption) as raised:
        anyio.run(find_end, log, len(log.data))
    assert str(raised.value) == "Log entry 1 is empty"
    assert log.reads == 2


@settings(max_examples=300, deadline=None)
@given(
    entries=st.lists(
        st.tuples(*[st.one_of(st.integers(0, 20), st.integers(0, (1 << 64) - 1))] * 4), max_size=6
    ),
    claimed=st.one_of(st.integers(0, 8), st.integers(0, (1 << 64) - 1)),
    tail=st.binary(max_size=2000),
    size=st.sampled_from([0, 32, 64, 512, 1000]),
)
def test_any_bytes_are_a_log_or_refused(
    entries: list[tuple[int, ...]], claimed: int, tail: bytes, size: int
) -> None:
    body = b"".join(struct.pack("<QQQQ", *entry).ljust(size, b"\0") for entry in entries)
    log = superblock(claimed, size)[: max(size, 32)] + body + tail
    try:
        end = end_of(log)
    except InvalidOption:
        return
    assert end.entries == claimed
    assert end.next * size <= len(log) + size - 1


def test_a_refused_log_stays_as_it_is(tmp_path: Path, in_yard: Any) -> None:
    options = logged(tmp_path, **{"log-append": True})
    log = superblock(1 << 60) + WRITTEN
    (tmp_path / "log").write_bytes(log)
    with pytest.raises(BlockyardError, match="Log entry 1 is beyond the end of the log"):
        in_yard(lambda yard: yard.open(options))
    assert (tmp_path / "log").read_bytes() == log
