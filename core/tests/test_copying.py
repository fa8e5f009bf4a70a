# SPDX-License-Identifier: Apache-2.0
"""Copies and comparisons as Python starts, watches and ends them."""

import anyio
import pytest

from blockyard.copying import Comparer, Comparison, Copier, CopyFailed, Range, Side
from blockyard.errors import InvalidOption
from blockyard.image import Image
from blockyard.loop import LoopParams
from blockyard.yard import Yard

pytestmark = pytest.mark.anyio

SIZE = 65536


async def pair(yard: Yard, size: int = SIZE) -> tuple[Image, Image]:
    """Two images in memory."""
    return await yard.open(driver="mem", size=size), await yard.open(driver="mem", size=size)


def whole(image: Image) -> list[Range]:
    """All of an image."""
    return [Range(source=image.root, bytes=image.length)]


async def test_an_image_is_copied(yard: Yard) -> None:
    a, b = await pair(yard)
    await a.write(1000, b"hello")
    copier = Copier(yard.control, b.root, whole(a), chunk=4096)
    assert copier.progress.done == 0
    await copier.run()
    assert copier.progress.fraction == 1.0
    assert copier.progress.total == SIZE
    assert await b.read(0, SIZE) == await a.read(0, SIZE)


async def test_images_are_joined(yard: Yard) -> None:
    a, b = await pair(yard)
    target = await yard.open(driver="mem", size=2 * SIZE)
    await a.write(0, b"a" * SIZE)
    await b.write(0, b"b" * SIZE)
    ranges = [*whole(a), Range(source=b.root, bytes=SIZE, target_offset=SIZE)]
    await Copier(yard.control, target.root, ranges, in_order=False).run()
    assert await target.read(SIZE - 1, 2) == b"ab"


async def test_an_error_tells_where_it_was(yard: Yard) -> None:
    a, b = await pair(yard)
    yard.graph.carrier.set_root_rights(b.root.native, writable=False, growable=False)
    await a.write(8192, b"x")
    with pytest.raises(CopyFailed, match="^Operation not permitted$") as caught:
        await Copier(yard.control, b.root, whole(a), chunk=4096, target_is_zero=True).run()
    assert (caught.value.offset, caught.value.side) == (8192, Side.WRITE)
    assert (caught.value.errno, caught.value.index) == (1, 0)


async def test_parameters_without_sense_are_refused(yard: Yard) -> None:
    a, b = await pair(yard)
    with pytest.raises(InvalidOption):
        await Copier(yard.control, b.root, whole(a), unit=3).run()


async def test_a_cancelled_copy_ends(yard: Yard) -> None:
    a, b = await pair(yard)
    copier = Copier(yard.control, b.root, whole(a), chunk=512, rate=1, sparse=0)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(copier.run)
            while not copier.progress.done:
                await anyio.sleep(0.001)
            scope.cancel()
    assert copier.progress.done < SIZE
    await a.close()
    await b.close()


async def test_a_paused_copy_goes_on(yard: Yard) -> None:
    a, b = await pair(yard)
    await a.write(0, b"a" * SIZE)
    copier = Copier(yard.control, b.root, whole(a), chunk=512, rate=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(copier.run)
        while not copier.progress.done:
            await anyio.sleep(0.001)
        copier.set_paused(True)
        copier.set_paused(False)
        tasks.cancel_scope.cancel()
    copier.set_paused(True)
    copier.set_rate(0)
    await copier.run()
    assert await b.read(0, SIZE) == b"a" * SIZE


async def test_the_first_difference_is_found(yard: Yard) -> None:
    a, b = await pair(yard)
    comparer = Comparer(yard.control, (a.root, b.root), chunk=4096)
    assert (await comparer.run()).kind is Comparison.EQUAL
    assert comparer.progress.fraction == 1.0
    await a.write(40000, b"x")
    await a.write(20000, b"x")
    helper = yard.loops.add("helper", LoopParams())
    for loop in (None, helper):
        found = await Comparer(
            yard.control, (a.root, b.root), helper=loop, chunk=4096, parallel=3
        ).run()
        assert (found.kind, found.offset) == (Comparison.DIFFERENT, 20000 // 512 * 512)


async def test_the_longer_image_may_end_in_zeroes(yard: Yard) -> None:
    a = await yard.open(driver="mem", size=SIZE)
    b = await yard.open(driver="mem", size=2 * SIZE)
    assert (await Comparer(yard.control, (a.root, b.root)).run()).kind is Comparison.EQUAL
    await b.write(2 * SIZE - 1, b"x")
    found = await Comparer(yard.control, (a.root, b.root)).run()
    assert found.offset == 2 * SIZE - 512
