# SPDX-License-Identifier: Apache-2.0
"""Checks at the node's ends."""

import errno

from blockyard.testing.case import Case
from blockyard.testing.check import NotApplicableError, check, expect, expect_bytes, refused

__all__ = [
    "first_and_last_byte",
    "nothing_beyond_the_end",
    "nothing_is_written_beyond_the_end",
    "offsets_beyond_32_bits",
    "requests_of_no_length",
]

#: What a request outside the node may fail with.
_OUTSIDE = (errno.EIO, errno.EINVAL, errno.ENOSPC)


@check(stores=True)
async def first_and_last_byte(case: Case) -> None:
    """The first and the last byte can be written and read."""
    for offset in (0, case.length - 1):
        data = case.data(1)
        await case.node.write(offset, data)
        expect_bytes(await case.node.read(offset, 1), data, offset)


@check(stores=True)
async def offsets_beyond_32_bits(case: Case) -> None:
    """Around 4 GiB offsets do not wrap, in one request that crosses it neither."""
    if not case.subject.large:
        raise NotApplicableError("the subject is not declared large")
    await case.close()
    (case.folder / "large").mkdir()
    case.options = await case.make(case.folder / "large", 6 << 30)
    node, edge = await case.reopen(), 4 << 30
    low, high = case.data(8192), case.data(8192)
    await node.write(0, low)
    await node.write(edge - 4096, high)
    await node.write_zeroes(edge + 8192, 1 << 20)
    expect_bytes(await node.read(0, 8192), low)
    expect_bytes(await node.read(edge - 4096, 8192), high, edge - 4096)


@check()
async def nothing_beyond_the_end(case: Case) -> None:
    """A read that ends beyond the length, or begins there, is refused whole."""
    for offset, length in ((case.length - 1, 2), (case.length, 1), ((1 << 63) - 2, 1)):
        await refused(case.node.read(offset, length), f"a read at {offset}", *_OUTSIDE)


@check(writes=True)
async def nothing_is_written_beyond_the_end(case: Case) -> None:
    """A write that ends beyond the length is refused and changes nothing."""
    before, length = await case.node.read(case.length - 512, 512), case.length
    work = case.node.write(length - 256, case.data(512))
    await refused(work, "a write across the end", *_OUTSIDE)
    expect(case.length == length, "the length changed")
    expect_bytes(await case.node.read(length - 512, 512), before, length - 512)


@check()
async def requests_of_no_length(case: Case) -> None:
    """A request of no bytes succeeds, at the very end too."""
    for offset in (0, case.length):
        expect(await case.node.read(offset, 0) == b"", "a read of nothing brought bytes")
