# SPDX-License-Identifier: Apache-2.0
"""Checks with many requests at a time."""

import anyio

from blockyard.testing.case import Case
from blockyard.testing.check import check, expect, expect_bytes

__all__ = [
    "flushes_among_writes",
    "overlapping_writes_leave_one_of_them",
    "parallel_reads_agree",
    "parallel_writes_stay_apart",
]

_STEP = 4096


@check(stores=True)
async def parallel_writes_stay_apart(case: Case) -> None:
    """64 writes at once, side by side, all arrive."""
    model = bytearray(case.data(64 * _STEP))
    async with anyio.create_task_group() as tasks:
        for offset in range(0, len(model), _STEP):
            tasks.start_soon(case.node.write, offset, bytes(model[offset : offset + _STEP]))
    expect_bytes(await case.node.read(0, len(model)), model)


@check()
async def parallel_reads_agree(case: Case) -> None:
    """200 reads at once, overlapping, see what one read sees."""
    extent = min(case.length, 512 << 10)
    whole = await case.node.read(0, extent)

    async def compare(offset: int, length: int) -> None:
        found = await case.node.read(offset, length)
        expect_bytes(found, whole[offset : offset + length], offset)

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            length = case.random.randint(1, 20000)
            tasks.start_soon(compare, case.random.randint(0, extent - length), length)


@check(stores=True)
async def overlapping_writes_leave_one_of_them(case: Case) -> None:
    """Of writes to one range at once, every sector is one writer's."""
    extent = 16 * 512
    async with anyio.create_task_group() as tasks:
        for number in range(1, 33):
            tasks.start_soon(case.node.write, 0, bytes([number]) * extent)
    found = await case.node.read(0, extent)
    for offset in range(0, extent, 512):
        sector = found[offset : offset + 512]
        one = len(set(sector)) == 1 and 1 <= sector[0] <= 32
        expect(one, f"the sector at {offset} is a mixture")


@check(stores=True)
async def flushes_among_writes(case: Case) -> None:
    """Flushes and writes at once end, and all data is there."""
    model = case.data(32 * _STEP)
    async with anyio.create_task_group() as tasks:
        for offset in range(0, len(model), _STEP):
            tasks.start_soon(case.node.write, offset, model[offset : offset + _STEP])
            tasks.start_soon(case.node.flush)
    expect_bytes(await case.node.read(0, len(model)), model)
