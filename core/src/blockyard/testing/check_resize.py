# SPDX-License-Identifier: Apache-2.0
"""Checks of TRUNCATE."""

import errno

from blockyard.testing.case import Case
from blockyard.testing.check import check, expect, expect_bytes, refused, served

__all__ = ["growing_keeps_the_data", "shrinking_refuses_what_is_gone"]

_MORE = 1 << 20


@check(stores=True)
async def growing_keeps_the_data(case: Case) -> None:
    """A longer node has the old data, as a rule zeroes behind it, and serves both."""
    data, length = case.data(4096), case.length
    await case.node.write(length - 4096, data)
    await served(case.node.truncate(length + _MORE), "truncate")
    expect(case.length == length + _MORE, f"the length is {case.length}")
    expect_bytes(await case.node.read(length - 4096, 4096), data, length - 4096)
    more = await case.node.read(length, _MORE)
    if case.subject.grows_zero:
        expect_bytes(more, bytes(_MORE), length)
    await case.node.write(length + _MORE - 4096, data)
    expect_bytes(await case.node.read(length + _MORE - 4096, 4096), data)


@check(stores=True)
async def shrinking_refuses_what_is_gone(case: Case) -> None:
    """A shorter node refuses what is beyond its new end, and shows no old data later."""
    data, length = case.data(4096), case.length
    await case.node.write(length - 4096, data)
    await served(case.node.truncate(length - 4096), "truncate")
    expect(case.length == length - 4096, f"the length is {case.length}")
    await refused(case.node.read(length - 4096, 1), "a read beyond the new end", errno.EIO,
                  errno.EINVAL)  # fmt: skip
    await case.node.truncate(length)
    again = await case.node.read(length - 4096, 4096)
    if case.subject.grows_zero:
        expect_bytes(again, bytes(4096), length - 4096)
    expect(again != data, "old data shows beyond the old end")
