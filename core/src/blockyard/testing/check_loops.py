# SPDX-License-Identifier: Apache-2.0
"""Checks of nodes that are served by an iothread."""

import anyio

from blockyard.loop import LoopParams
from blockyard.testing.case import Case
from blockyard.testing.check import check, expect_bytes

__all__ = ["another_loop_serves_the_same", "moving_under_load_loses_nothing"]


@check()
async def another_loop_serves_the_same(case: Case) -> None:
    """Moved to an iothread, the node reads what it read."""
    before = await case.node.read(0, 64 << 10)
    loop = case.yard.loops.add("io0", LoopParams())
    await case.yard.graph.move(case.node.node, loop)
    expect_bytes(await case.node.read(0, 64 << 10), before)


@check(stores=True)
async def moving_under_load_loses_nothing(case: Case) -> None:
    """Moved to and fro between loops while 16 writers write, nothing is lost."""
    graph, loops = case.yard.graph, case.yard.loops
    homes = [loops.add("io0", LoopParams()), loops.add("io1", LoopParams(poll_max_ns=0))]
    written: dict[int, bytes] = {}

    async def writer(number: int) -> None:
        for turn in range(16):
            offset, data = (number * 16 + turn) * 512, case.data(512)
            await case.node.write(offset, data)
            written[offset] = data

    async with anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(writer, number)
        for turn in range(8):
            await graph.move(case.node.node, homes[turn % 2])
    for offset, data in written.items():
        expect_bytes(await case.node.read(offset, 512), data, offset)
