# SPDX-License-Identifier: Apache-2.0
"""Checks of what a driver says about the requests that it takes."""

from blockyard.testing.case import Case
from blockyard.testing.check import check, expect

__all__ = ["alignments_are_powers_of_two", "length_is_whole", "limits_fit_the_alignment"]


@check()
async def alignments_are_powers_of_two(case: Case) -> None:
    """request_alignment and memory_alignment are powers of two."""
    for name in ("request_alignment", "memory_alignment"):
        value = getattr(case.node.limits, name)
        expect(value >= 0 and value & (value - 1) == 0, f"{name} is {value}")


@check()
async def limits_fit_the_alignment(case: Case) -> None:
    """max_transfer, max_write_zeroes and max_discard are multiples of request_alignment."""
    limits = case.node.limits
    align = limits.request_alignment or 1
    for name in ("max_transfer", "max_write_zeroes", "max_discard"):
        value = getattr(limits, name)
        expect(value % align == 0, f"{name} {value} is no multiple of {align}")


@check()
async def length_is_whole(case: Case) -> None:
    """The length is not negative and fits 63 bits; the kit needs 256 KiB of it."""
    expect(256 << 10 <= case.length < 1 << 63, f"the length is {case.length}")
