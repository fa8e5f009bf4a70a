# SPDX-License-Identifier: Apache-2.0
"""Logs of writes as they lie on disk: what the kernel's dm-log-writes writes, version 1.

Sector 0 is the superblock.  Each entry behind it is a sector that says what was done,
and then the data, in whole sectors; a discard has none.  Numbers are little-endian.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from blockyard.errors import InvalidOption

if TYPE_CHECKING:
    from blockyard.access import Access

__all__ = ["DEFAULT_SECTOR_SIZE", "Position", "check_sector_size", "find_end"]

DEFAULT_SECTOR_SIZE = 512

_MAGIC = 0x6A736677736872
_VERSION = 1
_SUPERBLOCK = struct.Struct("<QQQI")
#: sector, nr_sectors, flags, data_len
_ENTRY = struct.Struct("<QQQQ")
_DISCARD = 4
_KNOWN_FLAGS = 15
_MOST_SECTOR_SIZE = 1 << 23
_WINDOW = 64 << 10


@attrs.frozen
class Position:
    """Where a log goes on."""

    sector_size: int
    #: The sector, of ``sector_size`` bytes, behind the last entry.
    next: int = 1
    entries: int = 0


def check_sector_size(size: int) -> None:
    """Refuse sectors that are no power of two, hold no entry, or are larger than 8 MiB.

    :raises InvalidOption: with QEMU's text.
    """
    if not _ENTRY.size <= size <= _MOST_SECTOR_SIZE or size & (size - 1):
        raise InvalidOption(f"Invalid log sector size {size}")


async def find_end(access: Access, length: int) -> Position:
    """Where an existing log of ``length`` bytes ends; a log without a byte is a new one.

    It takes no more steps than the log has sectors, whatever the superblock says.

    :raises InvalidOption: with QEMU's text, for what is no log of version 1; and if its
        entries are not all there.
    """
    if length == 0:
        return Position(DEFAULT_SECTOR_SIZE)
    start = await access.read(0, min(_SUPERBLOCK.size, length))
    magic, version, entries, size = _SUPERBLOCK.unpack(start.ljust(_SUPERBLOCK.size, b"\0"))
    if magic != _MAGIC:
        raise InvalidOption("Invalid log superblock magic")
    if version != _VERSION:
        raise InvalidOption(f"Unsupported log version {version}")
    check_sector_size(size)
    return await _walk(access, length, entries, size)


async def _walk(access: Access, length: int, entries: int, size: int) -> Position:
    end = -(-length // size)
    at, window, window_at = 1, b"", 0
    for number in range(entries):
        place = at * size - window_at
        if place + _ENTRY.size > len(window):
            window_at, place = at * size, 0
            if window_at + _ENTRY.size > length:
                raise _cut_off(number)
            window = await access.read(window_at, min(_WINDOW, length - window_at))
        _, sectors, flags, _ = _ENTRY.unpack_from(window, place)
        if flags & ~_KNOWN_FLAGS:
            raise InvalidOption(f"Invalid flags {flags:#x} in log entry {number}")
        if not flags and not sectors:
            # Nobody logs that, and holes of a sparse file are to be followed by nobody.
            raise InvalidOption(f"Log entry {number} is empty")
        at += 1 if flags & _DISCARD else 1 + sectors
        if at > end:
            raise _cut_off(number)
    return Position(size, at, entries)


def _cut_off(number: int) -> InvalidOption:
    return InvalidOption(f"Log entry {number} is beyond the end of the log")
