# SPDX-License-Identifier: Apache-2.0
"""Checks of opening, closing and opening again."""

import errno
import os

from blockyard.permission import Perm
from blockyard.schema import visit
from blockyard.schema.block import BlockdevOptions
from blockyard.testing.case import Case
from blockyard.testing.check import NotApplicableError, check, expect, expect_bytes, refused

__all__ = [
    "closing_leaves_nothing_behind",
    "data_is_there_after_reopening",
    "read_only_can_be_lifted",
    "read_only_nodes_refuse_writes",
    "requests_are_counted",
]


def _needs_read_only(case: Case) -> None:
    if case.subject.writes_always:
        raise NotApplicableError("the driver writes by itself")


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@check(stores=True)
async def data_is_there_after_reopening(case: Case) -> None:
    """What was written and flushed is read after closing and opening."""
    if not case.subject.persists:
        raise NotApplicableError("the driver keeps nothing beyond a close")
    data = case.data(64 << 10)
    await case.node.write(4096, data)
    await case.node.flush()
    await case.reopen()
    expect_bytes(await case.node.read(4096, len(data)), data, 4096)


@check()
async def read_only_nodes_refuse_writes(case: Case) -> None:
    """Opened with read-only, the node reads, and refuses whatever changes it."""
    _needs_read_only(case)
    node = await case.reopen(**{"read-only": True})
    expect(node.read_only, "read-only was asked for and is not set")
    before = await node.read(0, 4096)
    denied = (errno.EPERM, errno.EACCES, errno.EROFS, errno.EBADF)
    await refused(node.write(0, b"x" * 512), "a write", *denied)
    await refused(node.write_zeroes(0, 512), "write_zeroes", *denied)
    await refused(node.discard(0, 512), "a discard", *denied)
    expect_bytes(await node.read(0, 4096), before)


@check(stores=True)
async def read_only_can_be_lifted(case: Case) -> None:
    """blockdev-reopen makes a read-only node writable, and the data is there."""
    _needs_read_only(case)
    image = await case.reopen(**{"read-only": True})
    if not image.node.driver.reopen_supported():
        raise NotApplicableError("the driver does not support blockdev-reopen")
    before = await image.read(0, 8192)
    # A reopen wants to hear of the backing file, even of one that the image has named.
    backing = image.node.children.get("backing")
    named = {"backing": backing.node.name} if backing is not None else {}
    options = visit(BlockdevOptions, case.full_options(**{"read-only": False}, **named))
    await case.yard.graph.reopen([options])
    await case.yard.graph.set_root_permissions(
        image.root, image.root.perm | Perm.WRITE, image.root.shared
    )
    data = case.data(4096)
    await image.write(4096, data)
    expect_bytes(await image.read(0, 8192), before[:4096] + data)


@check()
async def closing_leaves_nothing_behind(case: Case) -> None:
    """Opening and closing ten times leaves no descriptor and no node."""
    # Twice before counting: the first open starts threads.
    for _ in range(2):
        await case.reopen()
        await case.node.read(0, 512)
    before = _descriptors()
    for _ in range(10):
        await case.reopen()
        await case.node.read(0, 512)
    expect(_descriptors() <= before, f"{_descriptors() - before} more descriptors are open")


@check()
async def requests_are_counted(case: Case) -> None:
    """Accounting sees each read once, with its bytes."""
    before = case.node.stats().op["read"]
    for _ in range(5):
        await case.node.read(0, 4096)
    after = case.node.stats().op["read"]
    expect(after.done - before.done == 5, f"{after.done - before.done} reads counted of 5")
    expect(after.bytes - before.bytes == 5 * 4096, "the bytes are wrong")
