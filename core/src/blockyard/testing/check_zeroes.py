# SPDX-License-Identifier: Apache-2.0
"""Checks of WRITE_ZEROES and DISCARD."""

import errno

from blockyard.errors import ImageIOError
from blockyard.testing.case import Case
from blockyard.testing.check import check, expect, expect_bytes

__all__ = [
    "detected_zeroes_read_as_zeroes",
    "discarding_leaves_the_neighbours",
    "fast_zeroes_work_or_are_refused",
    "zeroes_may_be_unaligned",
    "zeroes_read_as_zeroes",
]

_PIECE = 128 << 10


@check(stores=True)
async def zeroes_read_as_zeroes(case: Case) -> None:
    """write_zeroes makes its range read as zeroes, deallocating or not."""
    for may_unmap in (False, True):
        data = case.data(_PIECE)
        await case.node.write(0, data)
        await case.node.write_zeroes(4096, _PIECE - 8192, may_unmap=may_unmap)
        model = data[:4096] + bytes(_PIECE - 8192) + data[-4096:]
        expect_bytes(await case.node.read(0, _PIECE), model)


@check(stores=True)
async def zeroes_may_be_unaligned(case: Case) -> None:
    """write_zeroes at odd offsets zeroes its range and nothing else."""
    data = case.data(_PIECE)
    await case.node.write(0, data)
    await case.node.write_zeroes(777, 70001)
    model = data[:777] + bytes(70001) + data[70778:]
    expect_bytes(await case.node.read(0, _PIECE), model)


@check(stores=True)
async def detected_zeroes_read_as_zeroes(case: Case) -> None:
    """With detect-zeroes, written zeroes read as zeroes and other data as it is."""
    node = await case.reopen(**{"detect-zeroes": "unmap"})
    data = case.data(_PIECE)
    await node.write(0, data)
    await node.write(4096, bytes(65536))
    expect_bytes(await node.read(0, _PIECE), data[:4096] + bytes(65536) + data[69632:])


@check(stores=True)
async def fast_zeroes_work_or_are_refused(case: Case) -> None:
    """With no_fallback, zeroes are written or ENOTSUP is answered and nothing changes."""
    data = case.data(_PIECE)
    await case.node.write(0, data)
    wanted = bytes(_PIECE)
    try:
        await case.node.write_zeroes(0, _PIECE, no_fallback=True)
    except ImageIOError as error:
        expect(error.errno == errno.ENOTSUP, f"refused with '{error}', not ENOTSUP")
        wanted = data
    expect_bytes(await case.node.read(0, _PIECE), wanted)


@check(stores=True)
async def discarding_leaves_the_neighbours(case: Case) -> None:
    """A discarded byte reads as before or as zero; the bytes around it stay."""
    data = case.data(_PIECE)
    await case.node.write(0, data)
    await case.node.discard(5000, 60000)
    found = await case.node.read(0, _PIECE)
    expect_bytes(found[:5000], data[:5000])
    expect_bytes(found[65000:], data[65000:], 65000)
    odd = next((i for i in range(5000, 65000) if found[i] not in (0, data[i])), None)
    expect(odd is None, f"discarded byte {odd} is neither old nor zero")
