# SPDX-License-Identifier: Apache-2.0
"""Requests on files and devices: ends of files, holes, full disks, failed flushes."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from blockyard.errors import ImageIOError
from blockyard.request import Preallocation, StatusFlags

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
SIZE = MIB

ways = pytest.mark.parametrize(
    "way",
    [
        {},
        {"aio": "threads"},
        {"aio": "io_uring"},
        {"cache": {"direct": True}},
        {"cache": {"direct": True}, "aio": "native"},
        {"cache": {"direct": True}, "aio": "threads"},
    ],
    ids=["auto", "threads", "ring", "direct", "direct-native", "direct-threads"],
)


@ways
def test_what_is_behind_a_short_file_is_zero(tmp_path: Path, in_yard: Any, way: Any) -> None:
    path = tmp_path / "short.img"
    path.write_bytes(b"x" * 1000)

    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(path), **way) as disk:
            assert disk.length == 1024
            assert await disk.read(0, 1024) == b"x" * 1000 + bytes(24)
            assert await disk.read(990, 34) == b"x" * 10 + bytes(24)
            assert await disk.read(1000, 24) == bytes(24)

    in_yard(check)
    assert path.stat().st_size == 1000


@ways
def test_a_file_that_has_become_shorter_reads_as_zeroes(
    image: Path, in_yard: Any, way: Any
) -> None:
    data = image.read_bytes()

    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(image), **way) as disk:
            os.truncate(image, 5000)
            assert await disk.read(0, 16 * KIB) == data[:5000] + bytes(16 * KIB - 5000)
            assert await disk.read(512 * KIB, 64) == bytes(64)

    in_yard(check)


@ways
def test_long_reads_are_whole_and_end_in_zeroes_behind_the_file(
    tmp_path: Path, in_yard: Any, way: Any
) -> None:
    data = os.urandom(5 * KIB * KIB)
    path = tmp_path / "long.img"
    path.write_bytes(data + bytes(KIB * KIB))

    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(path), **way) as disk:
            os.truncate(path, len(data))
            assert await disk.read(0, 6 * KIB * KIB) == data + bytes(KIB * KIB)
            assert await disk.read(777, 4 * KIB * KIB + 3) == data[777 : 780 + 4 * KIB * KIB]

    in_yard(check)


@ways
@pytest.mark.parametrize("length", [1, 512, 4 * KIB, 64 * KIB, 64 * KIB + 1, 300 * KIB])
def test_writes_of_any_size_arrive(image: Path, in_yard: Any, way: Any, length: int) -> None:
    data = os.urandom(length)
    before = image.read_bytes()

    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(image), **way) as disk:
            await disk.write(4097, data, fua=True)
            assert await disk.read(4097, length) == data

    in_yard(check)
    assert image.read_bytes() == before[:4097] + data + before[4097 + length :]


async def fill(disk: Any, length: int) -> None:
    for offset in range(0, 4 * MIB, length):
        await disk.write(offset + 4 * KIB, bytes([7]) * length)


@pytest.mark.parametrize("length", [4 * KIB, 128 * KIB])
@pytest.mark.parametrize("aio", [None, "threads", "io_uring"])
def test_a_full_disk_says_so_and_the_rest_goes_on(
    small_disk: Path, in_yard: Any, length: int, aio: str | None
) -> None:
    path = small_disk / "disk.img"
    path.touch()
    os.truncate(path, 4 * MIB)
    options = {"aio": aio, "discard": "unmap"} if aio else {"discard": "unmap"}

    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(path), **options) as disk:
            await disk.write(0, b"first")
            with pytest.raises(ImageIOError) as caught:
                await fill(disk, length)
            assert caught.value.errno == errno.ENOSPC
            await disk.discard(2 * MIB, 2 * MIB)
            await disk.discard(0, MIB)
            await disk.write(3 * MIB, b"again")
            assert await disk.read(3 * MIB, 5) == b"again"

    in_yard(check)


def test_growing_a_full_disk_undoes_itself(small_disk: Path, in_yard: Any) -> None:
    path = small_disk / "disk.img"
    path.write_bytes(b"x" * 4096)

    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(path)) as disk:
            for prealloc in (Preallocation.FALLOC, Preallocation.FULL):
                with pytest.raises(ImageIOError) as caught:
                    await disk.truncate(4 * MIB, prealloc=prealloc)
                assert caught.value.errno == errno.ENOSPC
                assert disk.length == 4096
                assert path.stat().st_size == 4096

    in_yard(check)


@pytest.mark.parametrize("prealloc", [Preallocation.OFF, Preallocation.FALLOC, Preallocation.FULL])
def test_growing(tmp_path: Path, in_yard: Any, prealloc: Preallocation) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"x" * 512)

    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(path)) as disk:
            await disk.truncate(MIB, prealloc=prealloc)
            assert disk.length == MIB
            assert await disk.read(0, MIB) == b"x" * 512 + bytes(MIB - 512)
            if prealloc is Preallocation.OFF:
                await disk.truncate(700)
                assert disk.length == 1024

    in_yard(check)
    allocated = path.stat().st_blocks * 512
    assert allocated >= MIB if prealloc is not Preallocation.OFF else path.stat().st_size == 700


def test_unknown_and_shrinking_preallocation(image: Path, in_yard: Any) -> None:
    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(image)) as disk:
            for length, prealloc in ((2 * MIB, 1), (512, 2), (512, 3)):
                with pytest.raises(ImageIOError) as caught:
                    await disk.truncate(length, prealloc=Preallocation(prealloc))
                assert caught.value.errno == errno.ENOTSUP
            assert disk.length == MIB

    in_yard(check)


# -- holes


def extents(statuses: list[Any]) -> list[tuple[int, bool]]:
    merged: list[tuple[int, bool]] = []
    for status in statuses:
        if merged and merged[-1][1] == status.zero:
            merged[-1] = (merged[-1][0] + status.bytes, status.zero)
        else:
            merged.append((status.bytes, status.zero))
    return merged


async def walk(disk: Any) -> list[tuple[int, bool]]:
    offset, found = 0, []
    while offset < disk.length:
        found.append(await disk.block_status(offset, disk.length - offset))
        offset += found[-1].bytes
    return extents(found)


@ways
def test_holes_show(tmp_path: Path, in_yard: Any, way: Any) -> None:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        for start in (64 * KIB, 256 * KIB):
            file.seek(start)
            file.write(b"x" * 64 * KIB)
        file.truncate(MIB)

    async def check(yard: Any) -> None:
        async with await yard.open(
            driver="file", filename=str(path), discard="unmap", **way
        ) as disk:
            for _ in range(2):
                assert await walk(disk) == [
                    (64 * KIB, True),
                    (64 * KIB, False),
                    (128 * KIB, True),
                    (64 * KIB, False),
                    (MIB - 320 * KIB, True),
                ]
            await disk.discard(64 * KIB, 64 * KIB)
            await disk.write_zeroes(256 * KIB, 32 * KIB, may_unmap=True)
            await disk.write(512 * KIB, b"y" * 4 * KIB)
            assert await walk(disk) == [
                (288 * KIB, True),
                (32 * KIB, False),
                (192 * KIB, True),
                (4 * KIB, False),
                (MIB - 516 * KIB, True),
            ]
            status = await disk.block_status(700 * KIB, KIB)
            assert status.owner is disk.node
            assert status.host_offset == 700 * KIB
            assert status.flags & StatusFlags.OFFSET
            assert status.allocated

    in_yard(check)


def test_zeroes_are_allocated_unless_they_may_be_unmapped(image: Path, in_yard: Any) -> None:
    def allocated() -> int:
        return image.stat().st_blocks * 512

    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(image), discard="unmap") as disk:
            await disk.flush()
            full = allocated()
            await disk.write_zeroes(0, 512 * KIB)
            assert await disk.read(0, 512 * KIB) == bytes(512 * KIB)
            assert allocated() >= full
            await disk.write_zeroes(0, 512 * KIB, may_unmap=True, no_fallback=True)
            assert await disk.read(0, 512 * KIB) == bytes(512 * KIB)
            assert allocated() <= full - 512 * KIB

    in_yard(check)


def test_discards_are_counted(image: Path, in_yard: Any) -> None:
    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(image), discard="unmap") as disk:
            await disk.discard(4096, 8192)
            await disk.discard(65536, 4096)
            assert disk.node.driver.statistics() == {
                "discard-nb-ok": 2,
                "discard-nb-failed": 0,
                "discard-bytes-ok": 12288,
            }
            assert await disk.read(4096, 8192) == bytes(8192)
            assert await disk.node.driver.allocated_size() == image.stat().st_blocks * 512

    in_yard(check)


def test_a_range_is_copied_between_files(image: Path, tmp_path: Path, in_yard: Any) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(bytes(MIB))
    data = image.read_bytes()

    async def check(yard: Any) -> None:
        async with (
            await yard.open(driver="file", filename=str(image), read_only=True) as source,
            await yard.open(driver="file", filename=str(other)) as target,
        ):
            await source.root.access.copy_range(8192, 65536, target.root.access, 4096)
            assert await target.read(4096, 65536) == data[8192:73728]
            assert await target.read(0, 4096) == bytes(4096)

    in_yard(check)


# -- durability


def test_a_failed_flush_is_never_forgotten(
    small_disk: Path, in_yard: Any, loop_device: Any
) -> None:
    """Linux reports lost pages once; the next fdatasync succeeds."""
    backing = small_disk / "backing"
    backing.touch()
    os.truncate(backing, 16 * MIB)
    device = loop_device(backing)

    async def check(yard: Any) -> None:
        options = {"driver": "host_device", "node-name": "d", "filename": device}
        async with await yard.open(options) as disk:
            for offset in range(0, 8 * MIB, MIB):
                await disk.write(offset, os.urandom(MIB))
            for _ in range(3):
                with pytest.raises(ImageIOError) as caught:
                    await disk.flush()
                assert caught.value.errno in (errno.EIO, errno.ENOSPC)
            with pytest.raises(ImageIOError):
                await disk.write(0, b"x", fua=True)
            os.truncate(backing, 0)
            os.truncate(backing, 16 * MIB)
            with pytest.raises(ImageIOError):
                await disk.flush()

        async with await yard.open(options) as disk:
            await disk.write(0, b"fresh")
            await disk.flush()

    in_yard(check)


def test_what_was_flushed_is_in_the_file(image: Path, in_yard: Any, qemu_io: Any) -> None:
    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(image)) as disk:
            for number in range(64):
                await disk.write(number * 4096, bytes([number]) * 4096)
            await disk.flush()
            await disk.flush()

    in_yard(check)
    for number in (0, 1, 63):
        assert qemu_io(image, f"read -P {number} {number * 4096} 4096").returncode == 0


# -- devices


def test_a_block_device(image: Path, in_yard: Any, loop_device: Any) -> None:
    data = image.read_bytes()
    device = loop_device(image)

    async def check(yard: Any) -> None:
        for way in ({}, {"cache": {"direct": True}}):
            async with await yard.open(
                driver="host_device", filename=device, discard="unmap", **way
            ) as disk:
                assert disk.length == MIB
                assert await disk.read(4095, 4098) == data[4095:8193]
                await disk.write(4095, data[4095:8193])
                await disk.write_zeroes(65536, 65536, may_unmap=True)
                await disk.write_zeroes(131073, 1000)
                await disk.discard(262144 + 1, 65536)
                assert await disk.read(65536, 65536) == bytes(65536)
                assert await disk.read(131072, 1002) == (
                    data[131072:131073] + bytes(1000) + data[132073:132074]
                )
                await disk.flush()
                with pytest.raises(ImageIOError):
                    await disk.truncate(2 * MIB)

    in_yard(check)


def test_a_drive_without_a_disc(in_yard: Any) -> None:
    """Any device opens as a drive; one that is none has no disc."""

    async def check(yard: Any) -> None:
        async with await yard.open(
            driver="host_cdrom", filename="/dev/null", read_only=True
        ) as drive:
            assert not await drive.node.driver.disc_present()
            for attempt in (
                drive.node.driver.move_tray(out=True),
                drive.node.driver.lock_door(locked=True),
            ):
                with pytest.raises(ImageIOError):
                    await attempt

    in_yard(check)
