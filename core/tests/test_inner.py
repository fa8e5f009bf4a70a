# SPDX-License-Identifier: Apache-2.0
"""Filters and formats in Python: drivers that send requests to their children."""

import anyio
import pytest

from blockyard.errors import BlockyardError
from blockyard.node import ChildSpec, DriverType, Opened, PythonDriver
from blockyard.permission import Role
from blockyard.plugins import Registry
from blockyard.request import BlockStatus, StatusFlags
from blockyard.schema import struct, visit
from blockyard.schema.block import BlockdevOptions, BlockdevRef
from blockyard.testing import Subject, run_conformance
from blockyard.yard import Yard


@struct
class OptionsInverse:
    """Options of the filter."""

    file: BlockdevRef


class Memory(PythonDriver):
    type = DriverType(name="memory", kind="protocol", options=None, implementation="")

    async def open(self):
        self.memory = bytearray(1 << 20)
        return Opened(length=len(self.memory))

    async def read(self, offset, length):
        await anyio.sleep(0)
        return bytes(self.memory[offset : offset + length])

    async def write(self, offset, view, flags):
        self.memory[offset : offset + len(view)] = view


def invert(data):
    return bytes(byte ^ 0xFF for byte in data)


class Inverse(PythonDriver):
    """Shows every byte of its child inverted; keeps a count in the child's last sector."""

    type = DriverType(
        name="inverse",
        kind="format",
        options=OptionsInverse,
        implementation="",
        children=(ChildSpec(name="file", role=Role.IMAGE),),
    )

    async def open(self):
        self.below = self.node.children["file"].node.length - 512
        self.count = int.from_bytes(await self.child("file").read(self.below, 8), "big")
        return Opened(length=self.below)

    async def close(self):
        if self.node.writable:
            await self.child("file").write(self.below, (self.count + 1).to_bytes(8, "big"))

    async def read(self, offset, length):
        return invert(await self.child("file").read(offset, length))

    async def write(self, offset, view, flags):
        await self.child("file").write(offset, invert(view))

    async def flush(self):
        await self.child("file").flush()

    async def block_status(self, offset, length):
        status = await self.child("file").block_status(offset, length)
        return BlockStatus(flags=StatusFlags.DATA | StatusFlags.ALLOCATED, bytes=status.bytes)


def make_registry():
    registry = Registry(entry_points=[])
    for name, driver in (("memory", Memory), ("inverse", Inverse)):
        record = driver.type
        fields = {"options": record.options, "children": record.children, "kind": record.kind}
        driver.type = DriverType(name=name, implementation=driver, **fields)
        registry.add("drivers", name, driver.type)
    return registry


OPTIONS = {"driver": "inverse", "node-name": "top", "file": {"driver": "memory"}}


def run(work, backend="asyncio"):
    async def main():
        with anyio.fail_after(20):
            async with Yard(registry=make_registry()) as yard:
                await work(yard)

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_format_reads_and_writes_its_child(backend):
    async def work(yard):
        async with await yard.open(OPTIONS) as image:
            assert await image.read(0, 4) == b"\xff" * 4
            await image.write(100, b"\x00\x01\x02")
            assert await image.read(99, 5) == b"\xff\x00\x01\x02\xff"
            below = image.node.children["file"].node.driver.memory
            assert below[100:103] == b"\xff\xfe\xfd"

    run(work, backend)


def test_open_and_close_reach_the_child_too():
    async def work(yard):
        options = {"driver": "memory", "node-name": "below"}
        below = await yard.graph.add(visit(BlockdevOptions, options))
        for expected in (0, 1, 2):
            async with await yard.open({**OPTIONS, "file": "below"}) as image:
                assert image.node.driver.count == expected
        assert below.driver.memory[-505] == 3

    run(work)


def test_drain_lets_what_is_under_way_reach_the_child():
    async def work(yard):
        async with await yard.open(OPTIONS) as image:
            async with anyio.create_task_group() as tasks:
                for offset in range(0, 64 << 10, 512):
                    tasks.start_soon(image.write, offset, b"\x55" * 512)
                for _ in range(5):
                    async with image.drained():
                        assert image.stats().in_flight == 0
            assert await image.read(0, 64 << 10) == b"\x55" * (64 << 10)

    run(work)


def test_a_replaced_child_is_followed():
    async def work(yard):
        graph = yard.graph
        for name in ("one", "two"):
            await graph.add(visit(BlockdevOptions, {"driver": "memory", "node-name": name}))
        graph.find("two").driver.memory[:4] = b"\xf0\xf1\xf2\xf3"
        async with await yard.open({**OPTIONS, "file": "one"}) as image:
            assert await image.read(0, 4) == b"\xff" * 4
            await graph.replace(graph.find("one"), graph.find("two"))
            assert await image.read(0, 4) == b"\x0f\x0e\x0d\x0c"

    run(work)


def test_an_unknown_child_is_refused_by_name():
    class Lost(Inverse):
        async def open(self):
            return Opened(length=len(await self.child("backing").read(0, 1)))

    async def work(yard):
        yard.registry.add(
            "drivers",
            "lost",
            DriverType(
                name="lost",
                kind="format",
                options=OptionsInverse,
                implementation=Lost,
                children=(ChildSpec(name="file"),),
            ),
        )
        with pytest.raises(BlockyardError, match="has no child 'backing'"):
            await yard.open(driver="lost", file={"driver": "memory"})
        assert not yard.graph.nodes

    run(work)


def test_a_format_in_python_keeps_the_contract():
    subject = Subject(
        make=lambda folder, size: {**OPTIONS, "node-name": "subject"},
        persists=False,
        registry=make_registry(),
    )
    report = run_conformance(subject)
    assert report.ok, report.text()
