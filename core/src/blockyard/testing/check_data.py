# SPDX-License-Identifier: Apache-2.0
"""Checks of data against a model."""

from blockyard.testing.case import Case
from blockyard.testing.check import check, expect, expect_bytes

__all__ = [
    "large_requests_are_whole",
    "random_operations_match_a_model",
    "reading_changes_nothing",
    "reads_fill_the_callers_buffer",
    "scattered_requests_keep_their_order",
    "unaligned_requests_touch_only_their_range",
    "what_is_written_is_read_back",
]

_PIECE = 64 << 10


@check(stores=True)
async def what_is_written_is_read_back(case: Case) -> None:
    """A write that completed is what later reads see."""
    data = case.data(_PIECE)
    await case.node.write(_PIECE, data)
    expect_bytes(await case.node.read(_PIECE, _PIECE), data, _PIECE)


@check()
async def reading_changes_nothing(case: Case) -> None:
    """Two reads of one range answer the same."""
    expect_bytes(await case.node.read(0, _PIECE), await case.node.read(0, _PIECE))


@check()
async def reads_fill_the_callers_buffer(case: Case) -> None:
    """read_into fills the buffer, all of it and nothing else."""
    buffer = bytearray(b"\xee" * (_PIECE + 32))
    with memoryview(buffer) as view:
        await case.node.read_into(0, view[16:-16])
    expect_bytes(buffer[16:-16], await case.node.read(0, _PIECE))
    expect(buffer[:16] == buffer[-16:] == b"\xee" * 16, "bytes around the buffer changed")


@check(stores=True)
async def unaligned_requests_touch_only_their_range(case: Case) -> None:
    """Odd offsets and lengths work, and the bytes around them stay."""
    base = case.data(_PIECE)
    await case.node.write(0, base)
    model = bytearray(base)
    for offset, length in ((1, 1), (511, 2), (513, 1023), (4095, 4098), (12345, 23456)):
        data = case.data(length)
        await case.node.write(offset, data)
        model[offset : offset + length] = data
        expect_bytes(await case.node.read(offset, length), data, offset)
    expect_bytes(await case.node.read(0, _PIECE), model)


@check(stores=True)
async def scattered_requests_keep_their_order(case: Case) -> None:
    """Requests of many buffers, of odd lengths and of none, are served as one."""
    lengths = [1, 511, 0, 4096, 4095, 8192, 13, *([512] * 60), 100]
    pieces = [case.data(length) for length in lengths]
    await case.node.writev(12345, pieces)
    whole = b"".join(pieces)
    expect_bytes(await case.node.read(12345, len(whole)), whole, 12345)
    buffers = [bytearray(length) for length in reversed(lengths)]
    await case.node.readv(12345, buffers)
    expect_bytes(b"".join(buffers), whole, 12345)


@check(stores=True)
async def large_requests_are_whole(case: Case) -> None:
    """One request as long as the node, or 32 MiB, is served whole."""
    length = min(case.length, 32 << 20)
    data = case.data(length)
    await case.node.write(0, data)
    expect_bytes(await case.node.read(0, length), data)


@check(stores=True)
async def random_operations_match_a_model(case: Case) -> None:
    """200 random writes, zeroes, flushes and reads agree with a byte array."""
    extent = min(case.length, 1 << 20)
    model = bytearray(await case.node.read(0, extent))
    for _ in range(200):
        length = case.random.choice((1, 512, 4096, case.random.randint(1, 50000)))
        offset = case.random.randint(0, extent - length)
        await _random_step(case, model, offset, length)
    expect_bytes(await case.node.read(0, extent), model)


async def _random_step(case: Case, model: bytearray, offset: int, length: int) -> None:
    action = case.random.random()
    if action < 0.45:
        data = case.data(length)
        await case.node.write(offset, data, fua=case.random.random() < 0.1)
        model[offset : offset + length] = data
    elif action < 0.6:
        await case.node.write_zeroes(offset, length, may_unmap=case.random.random() < 0.5)
        model[offset : offset + length] = bytes(length)
    elif action < 0.65:
        await case.node.flush()
    else:
        found = await case.node.read(offset, length)
        expect_bytes(found, model[offset : offset + length], offset)
