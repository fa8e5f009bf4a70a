# SPDX-License-Identifier: Apache-2.0
"""Children that come and go while requests run, and requests that overlap."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from pathlib import Path

PART = 16384
WRITERS = 6
SIZE = PART * WRITERS


def file(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    path.write_bytes(bytes(SIZE))
    return {"driver": "file", "node-name": name, "filename": str(path)}


class Load:
    """Writers that hold their part of the disk to a model, until they are told to stop."""

    def __init__(self, disk: Any) -> None:
        self.disk = disk
        self.model = bytearray(SIZE)
        self.stopped = False
        self.rounds = 0

    async def write(self, number: int) -> None:
        luck = random.Random(number)
        base = number * PART
        while not self.stopped:
            at = base + luck.randrange(PART)
            length = luck.randint(1, base + PART - at)
            data = luck.randbytes(length)
            if luck.random() < 0.2:
                data = bytes(length)
                await self.disk.write_zeroes(at, length)
            else:
                await self.disk.write(at, data)
            self.model[at : at + length] = data
            assert await self.disk.read(base, PART) == self.model[base : base + PART]
            self.rounds += 1
            await anyio.lowlevel.checkpoint()


def test_children_come_and_go_under_load(ours: Any, tmp_path: Path) -> None:
    """A child that comes has old data, is outvoted, and is corrected."""
    options = {
        "driver": "quorum",
        "node-name": "q",
        "children": [file(tmp_path, f"c{i}") for i in range(3)],
        "vote-threshold": 2,
        "rewrite-corrupted": True,
    }

    async def replace_one(number: int, load: Load) -> None:
        execute = ours.dispatcher.execute
        before = load.rounds
        await execute("blockdev-add", file(tmp_path, f"c{number}"))
        await execute("x-blockdev-change", {"parent": "q", "node": f"c{number}"})
        while load.rounds < before + 5:
            await anyio.lowlevel.checkpoint()
        assert await load.disk.read(0, SIZE)  # corrects it
        oldest = next(iter(ours.yard.graph.find("q").children))
        await execute("x-blockdev-change", {"parent": "q", "child": oldest})
        assert len(ours.yard.graph.find("q").children) == 3

    async def run() -> Load:
        async with await ours.yard.open(options) as disk:
            load = Load(disk)
            async with anyio.create_task_group() as tasks:
                for number in range(WRITERS):
                    tasks.start_soon(load.write, number)
                for number in range(3, 11):
                    await replace_one(number, load)
                load.stopped = True
            assert await disk.read(0, SIZE) == load.model
            assert list(ours.yard.graph.find("q").children) == [f"children.{i}" for i in (8, 9, 10)]
            return load

    load = ours.call(run)
    assert load.rounds > 40
    for number in (8, 9, 10):
        assert (tmp_path / f"c{number}").read_bytes() == load.model


def test_requests_that_overlap_reach_all_children_in_one_order(ours: Any, tmp_path: Path) -> None:
    """Children that are read and written in different times never differ."""
    children = [file(tmp_path, f"c{i}") for i in range(3)]
    slow = [{"event": "none", "iotype": "write", "errno": 0, "delay-ns": 300_000}]
    children[1] = {"driver": "blkdebug", "image": children[1], "inject-error": slow}
    options = {
        "driver": "quorum",
        "node-name": "q",
        "children": children,
        "vote-threshold": 3,
    }

    async def write(disk: Any, number: int) -> None:
        luck = random.Random(number)
        for _ in range(40):
            at = luck.randrange(PART - 4096)
            await disk.write(at, bytes([number]) * luck.randint(1, 4096))
            assert await disk.read(at, 4096)  # fails if two children differ

    async def run() -> None:
        async with await ours.yard.open(options) as disk, anyio.create_task_group() as tasks:
            for number in range(1, 9):
                tasks.start_soon(write, disk, number)

    ours.call(run)
    found = {(tmp_path / f"c{i}").read_bytes() for i in range(3)}
    assert len(found) == 1
    assert found != {bytes(SIZE)}
