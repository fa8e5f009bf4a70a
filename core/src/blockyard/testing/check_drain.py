# SPDX-License-Identifier: Apache-2.0
"""Checks of drained sections."""

import anyio

from blockyard.testing.case import Case
from blockyard.testing.check import check, expect, expect_bytes

__all__ = ["drain_holds_new_requests", "drain_under_load_loses_nothing", "drains_nest"]


@check()
async def drain_holds_new_requests(case: Case) -> None:
    """A request made in a drained section starts after it, and then is served."""
    ended = anyio.Event()

    async def read() -> None:
        await case.node.read(0, 4096)
        ended.set()

    async with anyio.create_task_group() as tasks:
        async with case.node.drained():
            tasks.start_soon(read)
            await anyio.sleep(0.05)
            expect(not ended.is_set(), "a read ran while the node was drained")
        with anyio.fail_after(10):
            await ended.wait()


@check()
async def drains_nest(case: Case) -> None:
    """Sections inside sections: the node serves again after the last has ended."""
    async with case.node.drained():
        async with case.node.drained():
            pass
        with anyio.move_on_after(0.05) as scope:
            await case.node.read(0, 512)
        expect(scope.cancelled_caught, "a read ran after the inner section's end")
    await case.node.read(0, 512)


@check(stores=True)
async def drain_under_load_loses_nothing(case: Case) -> None:
    """Drained again and again while 16 writers write, nothing is lost and nothing hangs."""
    written: dict[int, bytes] = {}

    async def writer(number: int) -> None:
        for turn in range(20):
            offset, data = (number * 20 + turn) * 512, case.data(512)
            await case.node.write(offset, data)
            written[offset] = data

    async with anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(writer, number)
        for _ in range(10):
            async with case.node.drained():
                count = len(written)
                await anyio.sleep(0.001)
                expect(len(written) <= count + 16, "requests run while drained")
    for offset, data in written.items():
        expect_bytes(await case.node.read(offset, 512), data, offset)
