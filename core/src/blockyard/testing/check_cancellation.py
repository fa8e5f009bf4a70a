# SPDX-License-Identifier: Apache-2.0
"""Checks of requests that nobody waits for any more."""

import anyio
import anyio.lowlevel

from blockyard.testing.case import Case
from blockyard.testing.check import check, expect_bytes

__all__ = ["cancelled_reads_harm_nobody", "cancelled_writes_are_whole_or_absent"]

_PIECE = 64 << 10


@check()
async def cancelled_reads_harm_nobody(case: Case) -> None:
    """The reader goes, the request ends by itself, the node serves on."""
    before = await case.node.read(0, _PIECE)
    for _ in range(50):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(case.node.read, 0, _PIECE)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    expect_bytes(await case.node.read(0, _PIECE), before)


@check(stores=True)
async def cancelled_writes_are_whole_or_absent(case: Case) -> None:
    """After a flush, a sector whose writer went holds the old data or the new."""
    old, new = b"\x11" * _PIECE, b"\x22" * _PIECE
    await case.node.write(0, old)
    with anyio.move_on_after(0):
        await case.node.write(0, new)
    await case.close()
    await case.reopen()
    if not case.subject.persists:
        return
    found = await case.node.read(0, _PIECE)
    for offset in range(0, _PIECE, 512):
        sector = found[offset : offset + 512]
        wanted = new if sector[0] == 0x22 else old
        expect_bytes(sector, wanted[:512], offset)
