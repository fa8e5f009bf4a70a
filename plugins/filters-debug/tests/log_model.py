# SPDX-License-Identifier: Apache-2.0
"""A log of writes read by other means than the driver's, and done again."""

from __future__ import annotations

import struct
from typing import NamedTuple

FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
MAGIC = 0x6A736677736872


class Entry(NamedTuple):
    """What was done; the numbers count the log's sectors."""

    sector: int
    sectors: int
    flags: int
    data: bytes


def superblock(entries: int, size: int = 512, magic: int = MAGIC, version: int = 1) -> bytes:
    """The log's first sector, in 512 bytes whatever it says."""
    return struct.pack("<QQQI", magic, version, entries, size).ljust(512, b"\0")


def header(sector: int, sectors: int, flags: int = 0, length: int = 0) -> bytes:
    """An entry's first sector, of 512 bytes."""
    return struct.pack("<QQQQ", sector, sectors, flags, length).ljust(512, b"\0")


def parse(log: bytes) -> tuple[int, list[Entry]]:
    """The size of its sectors, and the entries that the superblock counts."""
    magic, version, count, size = struct.unpack_from("<QQQI", log)
    assert (magic, version) == (MAGIC, 1)
    assert not any(log[28:size])
    found, at = [], size
    for _ in range(count):
        sector, sectors, flags, length = struct.unpack_from("<QQQQ", log, at)
        assert length == 0
        assert not any(log[at + 32 : at + size])
        data = b"" if flags & (DISCARD | FLUSH) else log[at + size : at + size * (1 + sectors)]
        assert flags & (DISCARD | FLUSH) or len(data) == sectors * size
        found.append(Entry(sector, sectors, flags, data))
        at += size + len(data)
    assert at == len(log)
    return size, found


def replay(log: bytes, disk: bytes) -> bytes:
    """What the disk is when all that was done to it is done again; discards leave zeroes."""
    size, entries = parse(log)
    image = bytearray(disk)
    for entry in entries:
        data = bytes(entry.sectors * size) if entry.flags & DISCARD else entry.data
        image[entry.sector * size : entry.sector * size + len(data)] = data
    return bytes(image)
