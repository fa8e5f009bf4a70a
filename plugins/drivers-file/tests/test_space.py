# SPDX-License-Identifier: Apache-2.0
"""The border between data and holes: what is deallocated, and how long a file is then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024
MIB = 1024 * KIB


def test_nothing_is_discarded_or_zeroed(image: Path, in_yard: Any) -> None:
    data = image.read_bytes()

    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(image), discard="unmap") as disk:
            for offset in (0, 4096, MIB):
                await disk.discard(offset, 0)
                await disk.write_zeroes(offset, 0)
                await disk.write_zeroes(offset, 0, may_unmap=True)

    in_yard(check)
    assert image.read_bytes() == data


def test_a_node_that_ignores_discards_keeps_its_blocks(image: Path, in_yard: Any) -> None:
    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(image)) as disk:
            await disk.flush()
            full = image.stat().st_blocks
            await disk.write_zeroes(0, 512 * KIB, may_unmap=True)
            assert await disk.read(0, 512 * KIB) == bytes(512 * KIB)
            assert image.stat().st_blocks >= full

    in_yard(check)


def test_zeroes_behind_the_end_make_the_file_longer(image: Path, in_yard: Any) -> None:
    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(image), discard="unmap") as disk:
            root = disk.node.parents[0].native
            yard.graph.carrier.set_root_rights(root, writable=True, growable=True)
            await disk.write_zeroes(MIB - 4096, 8192, may_unmap=True)
            assert disk.length == MIB + 4096
            await disk.write_zeroes(2 * MIB, 4096, may_unmap=True)
            assert disk.length == 2 * MIB + 4096

    in_yard(check)
    assert image.stat().st_size == 2 * MIB + 4096


def test_a_truncated_file_counts_whole_sectors(image: Path, in_yard: Any) -> None:
    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(image)) as disk:
            for length in (1024, 1000, 1000, 1024, 513):
                await disk.truncate(length)
                assert disk.length == 1024

    in_yard(check)


def test_a_device_keeps_its_length(image: Path, in_yard: Any, loop_device: Any) -> None:
    device = loop_device(image)

    async def check(yard: Any) -> None:
        async with await yard.open(driver="host_device", filename=device) as disk:
            await disk.truncate(65536, exact=False)
            assert disk.length == MIB

    in_yard(check)
