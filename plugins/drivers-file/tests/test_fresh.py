# SPDX-License-Identifier: Apache-2.0
"""Long writes to where nothing lies as yet, for which ext4 makes room first."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

from blockyard.copying import Copier, CopyFailed, Range, Side

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20

_FS_IOC_FIEMAP = 0xC020660B
_EXTENT_DELALLOC = 0x4
_EXTENTS = 64


def extent_flags(path: Path) -> list[int]:
    """The flags of a file's extents (``linux/fiemap.h``), as it is without a flush."""
    room = bytearray(struct.pack("=QQLLLL", 0, 1 << 62, 0, 0, _EXTENTS, 0) + bytes(56 * _EXTENTS))
    with path.open("rb") as file:
        fcntl.ioctl(file, _FS_IOC_FIEMAP, room)
    count = struct.unpack_from("=L", room, 20)[0]
    return [struct.unpack_from("=L", room, 32 + 56 * n + 40)[0] for n in range(count)]


async def copy_into(yard: Any, source: Path, target: Path) -> None:
    """Copy a raw image to another that reads as zeroes."""
    async with (
        await yard.open(driver="file", filename=str(source), read_only=True) as a,
        await yard.open(driver="file", filename=str(target)) as b,
    ):
        ranges = [Range(source=a.root, bytes=a.length)]
        await Copier(yard.control, b.root, ranges, target_is_zero=True).run()


def test_room_is_made_before_the_writes(tmp_path: Path, small_ext4: Path, in_yard: Any) -> None:
    source, target = tmp_path / "source", small_ext4 / "target"
    source.write_bytes(os.urandom(5 * MIB + 4096))
    target.touch()
    os.truncate(target, source.stat().st_size)
    in_yard(lambda yard: copy_into(yard, source, target))
    flags = extent_flags(target)
    assert flags
    # The last piece is short, and written as short ones are.
    assert not any(flag & _EXTENT_DELALLOC for flag in flags[:-1])
    assert target.read_bytes() == source.read_bytes()


def test_a_file_system_without_room_says_so(tmp_path: Path, small_ext4: Path, in_yard: Any) -> None:
    source, target = tmp_path / "source", small_ext4 / "target"
    source.write_bytes(os.urandom(32 * MIB))
    target.touch()
    os.truncate(target, 32 * MIB)
    with pytest.raises(CopyFailed) as caught:
        in_yard(lambda yard: copy_into(yard, source, target))
    assert (caught.value.errno, caught.value.side) == (errno.ENOSPC, Side.WRITE)
    copied = caught.value.offset // MIB * MIB
    assert copied
    with source.open("rb") as a, target.open("rb") as b:
        assert a.read(copied) == b.read(copied)
