# SPDX-License-Identifier: Apache-2.0
"""Checks of BLOCK_STATUS."""

from blockyard.testing.case import Case
from blockyard.testing.check import check, expect

__all__ = ["data_is_not_called_zero", "status_covers_the_node", "status_of_zero_is_true"]


async def _extents(case: Case, length: int) -> list[tuple[int, int, bool]]:
    """(offset, length, zero) from the start on."""
    found, offset = [], 0
    while offset < length:
        status = await case.node.block_status(offset, length - offset)
        expect(0 < status.bytes <= length - offset, f"{status.bytes} bytes at {offset}")
        found.append((offset, status.bytes, status.zero))
        offset += status.bytes
    return found


@check()
async def status_covers_the_node(case: Case) -> None:
    """Asked again and again, status gets from the start to the end."""
    extents = await _extents(case, case.length)
    expect(sum(length for _, length, _ in extents) == case.length, "a gap")


@check()
async def status_of_zero_is_true(case: Case) -> None:
    """A range that is said to be zero reads as zeroes."""
    for offset, length, zero in await _extents(case, min(case.length, 8 << 20)):
        if zero:
            data = await case.node.read(offset, length)
            expect(not any(data), f"{offset}+{length} is said to be zero")


@check(stores=True)
async def data_is_not_called_zero(case: Case) -> None:
    """After writes and zeroes, no range with data is said to be zero."""
    await case.node.write(64 << 10, case.data(64 << 10))
    await case.node.write_zeroes(96 << 10, 4096, may_unmap=True)
    await status_of_zero_is_true(case)
