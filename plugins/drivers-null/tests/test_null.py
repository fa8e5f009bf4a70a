# SPDX-License-Identifier: Apache-2.0
"""Null disks: sizes, latency, zeroes, and QEMU's words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from blockyard.errors import BlockyardError
from blockyard.yard import Yard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GIB = 1 << 30


def in_yard(function: Callable[[Any], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with Yard() as yard:
            try:
                return await function(yard), None
            except BlockyardError as error:
                return None, error

    result, error = anyio.run(main)
    if error:
        raise error
    return result


@pytest.mark.parametrize("driver", ["null-co", "null-aio"])
@pytest.mark.parametrize("zeroes", [None, False, True])
def test_reads_never_show_what_memory_held(driver: str, zeroes: bool | None) -> None:
    async def check(yard: Any) -> None:
        options = {} if zeroes is None else {"read_zeroes": zeroes}
        async with await yard.open(driver=driver, **options) as disk:
            assert disk.length == GIB
            buffer = bytearray(b"secret" * 1000)
            await disk.read_into(4096, buffer)
            assert buffer == bytes(6000)
            await disk.write(0, b"forgotten")
            assert await disk.read(0, 9) == bytes(9)
            await disk.flush()

    in_yard(check)


def test_only_read_zeroes_promises_zeroes() -> None:
    async def check(yard: Any) -> None:
        async with await yard.open(driver="null-co", read_zeroes=True) as disk:
            status = await disk.block_status(0, GIB)
            assert (status.bytes, status.zero, status.data) == (GIB, True, False)
        async with await yard.open(driver="null-co") as disk:
            status = await disk.block_status(0, GIB)
            assert (status.bytes, status.zero) == (GIB, False)

    in_yard(check)


def test_sizes_are_whole_sectors() -> None:
    async def check(yard: Any) -> None:
        for size, length in ((1000, 1024), (0, 0), (1 << 62, 1 << 62)):
            async with await yard.open(driver="null-co", size=size) as disk:
                assert disk.length == length

    in_yard(check)


def test_latency_delays_and_does_not_serialise() -> None:
    async def check(yard: Any) -> float:
        async with await yard.open(driver="null-co", latency_ns=50_000_000) as disk:
            start = time.monotonic()
            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(disk.read, number * 512, 512)
            return time.monotonic() - start

    assert 0.05 <= in_yard(check) < 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": -1}, "Value '-1' is out of range for parameter 'size'"),
        ({"size": (1 << 63) - 1}, "Could not refresh total sector count: File too large"),
        ({"latency_ns": 1 << 63}, "latency-ns is invalid"),
        ({"latency_ns": -5}, "latency-ns is invalid"),
    ],
)
def test_bad_values_are_refused(options: dict[str, int], text: str) -> None:
    async def attempt(yard: Any) -> None:
        await yard.open(driver="null-co", **options)

    with pytest.raises(BlockyardError) as caught:
        in_yard(attempt)
    assert str(caught.value) == text


def test_its_name_is_that_of_the_default() -> None:
    async def check(yard: Any) -> None:
        async with await yard.open(driver="null-co", latency_ns=1) as disk:
            assert disk.node.driver.exact_filename() == "null-co://"
        async with await yard.open(driver="null-aio", size=512) as disk:
            assert disk.node.driver.exact_filename() is None
            assert await disk.node.driver.allocated_size() == 0

    in_yard(check)
