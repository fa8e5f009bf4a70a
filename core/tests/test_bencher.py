# SPDX-License-Identifier: Apache-2.0
"""Series of requests: they reach the disk, and errors come out."""

import pytest

from blockyard.bencher import Bench, Bencher
from blockyard.errors import ImageIOError, InvalidOption
from blockyard.yard import Yard

pytestmark = pytest.mark.anyio

SIZE = 65536


async def test_requests_are_counted(yard: Yard) -> None:
    image = await yard.open(driver="mem", size=SIZE)
    bench = Bench(count=100, depth=7, bytes=512, offset=512, step=4096)
    assert await Bencher(yard.control, image.root, bench).run() > 0
    assert image.stats().op["read"].done == 100
    assert image.stats().op["read"].bytes == 51200


@pytest.mark.parametrize("drain", [True, False])
async def test_writes_have_their_pattern_and_flushes(yard: Yard, drain: bool) -> None:
    image = await yard.open(driver="mem", size=SIZE)
    bench = Bench(
        count=16,
        depth=4,
        bytes=4096,
        step=4096,
        write=True,
        pattern=7,
        flush_interval=5,
        drain=drain,
    )
    await Bencher(yard.control, image.root, bench).run()
    assert await image.read(0, SIZE) == b"\7" * SIZE
    assert image.stats().op["write"].done == 16
    assert image.stats().op["flush"].done == 4


async def test_an_error_ends_it(yard: Yard) -> None:
    image = await yard.open(driver="mem", size=SIZE)
    bench = Bench(count=3, depth=1, bytes=2 * SIZE)
    with pytest.raises(ImageIOError, match="Input/output error"):
        await Bencher(yard.control, image.root, bench).run()
    with pytest.raises(InvalidOption):
        await Bencher(yard.control, image.root, Bench(count=0, depth=1, bytes=1)).run()
