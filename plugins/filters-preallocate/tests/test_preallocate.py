# SPDX-License-Identifier: Apache-2.0
"""How files grow and shrink; options and permissions next to a real daemon's."""

from __future__ import annotations

import os
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from blockyard.permission import ALL, Perm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

IMG = os.environ.get("BLOCKYARD_QEMU_IMG", "qemu-img")
NULL = {"driver": "null-co", "size": 65536}
MIB = 1 << 20


def add(**options: Any) -> tuple[str, dict[str, Any]]:
    return "blockdev-add", {name.replace("_", "-"): value for name, value in options.items()}


DELETE = ("blockdev-del", {"node-name": "p"})


def reopen(**options: Any) -> tuple[str, dict[str, Any]]:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    node = {"driver": "preallocate", "node-name": "p", "file": "f", **named}
    return "blockdev-reopen", {"options": [node]}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"d" * 1024)
    return path


def over(image: Path, **more: Any) -> tuple[str, dict[str, Any]]:
    file = {"driver": "file", "node-name": "f", "filename": str(image)}
    return add(driver="preallocate", node_name="p", file=file, **more)


@asynccontextmanager
async def growing(yard: Any, name: str = "p") -> AsyncIterator[Any]:
    """A user that may write past the end."""
    perm = Perm.CONSISTENT_READ | Perm.WRITE | Perm.RESIZE
    root = await yard.graph.attach_root(yard.graph.find(name), perm, ALL, growable=True)
    try:
        yield root.access
    finally:
        await yard.graph.detach_root(root)


def test_a_file_grows_in_steps_and_is_cut_back(ours: Any, image: Path) -> None:
    ours.answers([over(image, prealloc_size=10000, prealloc_align=4096)])

    async def check() -> None:
        node = ours.yard.graph.find("p")
        async with growing(ours.yard) as access:
            assert image.stat().st_size == 1024
            await access.write(5000, b"x" * 100)
            assert image.stat().st_size == 16384
            assert node.length == 5100
            await access.write(5100, b"y" * 900)
            await access.write_zeroes(7000, 1192)
            assert image.stat().st_size == 16384
            assert node.length == 8192
            await access.flush()
            assert await access.read(924, 7268) == (
                b"d" * 100 + bytes(3976) + b"x" * 100 + b"y" * 900 + bytes(2192)
            )
        assert image.stat().st_size == node.length == 8192

    ours.call(check)


def test_truncations_within_what_is_there_cost_nothing(ours: Any, image: Path) -> None:
    ours.answers([over(image, prealloc_size=8192, prealloc_align=512)])

    async def check() -> None:
        node = ours.yard.graph.find("p")
        async with growing(ours.yard) as access:
            await access.write(1024, b"x")
            there = image.stat().st_size
            assert there == 9216 + 512
            await access.truncate(9216)
            assert (image.stat().st_size, node.length) == (there, 9216)
            assert await access.read(1025, 8191) == bytes(8191)
            await access.truncate(20480)
            assert image.stat().st_size == node.length == 20480
            await access.truncate(512)
            assert image.stat().st_size == node.length == 512
            await access.write(512, b"z")
            assert image.stat().st_size > 8192
        assert image.stat().st_size == 513

    ours.call(check)


def test_a_user_that_may_not_resize_sees_the_data_alone(ours: Any, image: Path) -> None:
    ours.answers([over(image)])

    async def check() -> None:
        async with growing(ours.yard) as access:
            await access.write(2047, b"x")
            reader = await ours.yard.attach("p", writable=False, share_writes=True)
            assert reader.length == 2048
            assert image.stat().st_size > MIB
        assert image.stat().st_size == reader.length == 2048
        assert await reader.read(1024, 1024) == bytes(1023) + b"x"
        await reader.close()

    ours.call(check)


def test_the_file_is_cut_back_below_a_format(ours: Any, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    subprocess.run([IMG, "create", "-q", "-f", "qcow2", path, "8M"], check=True)
    below = over(path, prealloc_size=MIB, prealloc_align=65536)[1]
    ours.answers([add(driver="qcow2", node_name="q", file=below)])

    async def check() -> None:
        async with await ours.yard.attach("q") as disk:
            for at in range(0, 4 * MIB, 65536):
                await disk.write(at, os.urandom(65536))
            assert path.stat().st_size >= 5 * MIB
            assert path.stat().st_size % 65536 == 0

    ours.call(check)
    ours.answers([("blockdev-del", {"node-name": "q"})])
    assert path.stat().st_size < 5 * MIB
    subprocess.run([IMG, "check", "-q", path], check=True)


def test_new_steps_hold_at_once(ours: Any, image: Path) -> None:
    ours.answers([over(image, prealloc_size=8192, prealloc_align=512)])

    async def check() -> None:
        async with growing(ours.yard) as access:
            await access.write(1024, b"x")
            ours_now = image.stat().st_size
            (name, arguments) = reopen(prealloc_size=0, prealloc_align=MIB)
            await ours.dispatcher.execute(name, arguments)
            await access.write(ours_now, b"x")
            assert image.stat().st_size == MIB

    ours.call(check)


def test_options_are_those_of_a_real_daemon(same: Any) -> None:
    values = [
        *({"prealloc_align": value} for value in (0, 511, 1000, 1536, -1, -512, 1 << 40)),
        *({"prealloc_size": value} for value in (0, 1, -1, 1 << 62)),
    ]
    commands = []
    for each in values:
        commands += [add(driver="preallocate", node_name="p", file=NULL, **each), DELETE]
    commands += [
        add(driver="preallocate", node_name="p", file={**NULL, "node-name": "f"}, prealloc_size=0),
        reopen(prealloc_size=MIB),
        reopen(prealloc_align=65536),
        reopen(prealloc_size=5, prealloc_align=1000),
        reopen(prealloc_size=5, prealloc_align=65536),
        reopen(prealloc_size=5),
        DELETE,
        add(driver="preallocate", node_name="p", file=NULL, read_only=True),
        DELETE,
    ]
    same(commands)


def test_nobody_else_writes_a_file_that_grows(ours: Any, image: Path) -> None:
    ours.answers([over(image)])

    async def check() -> None:
        graph = ours.yard.graph
        (edge,) = graph.find("p").children.values()
        assert edge.shared == ALL
        async with growing(ours.yard):
            assert edge.shared == Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED
        assert edge.shared == ALL

    ours.call(check)
