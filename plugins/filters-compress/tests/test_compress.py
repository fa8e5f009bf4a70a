# SPDX-License-Identifier: Apache-2.0
"""Writes become compressed clusters; what cannot hold them is refused."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

IMG = os.environ.get("BLOCKYARD_QEMU_IMG", "qemu-img")
KIB = 1 << 10
SIZE = 1 << 20


def run(*words: object) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    run(IMG, "create", "-q", "-f", "qcow2", path, SIZE)
    return path


def qcow2(path: Path, **more: Any) -> dict[str, Any]:
    file = {"driver": "file", "filename": str(path)}
    return {"driver": "qcow2", "node-name": "q", "file": file, **more}


def add(**options: Any) -> tuple[str, dict[str, Any]]:
    return "blockdev-add", {name.replace("_", "-"): value for name, value in options.items()}


def test_what_is_written_is_compressed(image: Path, ours: Any, tmp_path: Path) -> None:
    ours.answers([add(driver="compress", node_name="c", file=qcow2(image))])
    content = bytearray(SIZE)

    async def write() -> None:
        disk = await ours.yard.attach("c")
        assert disk.limits.request_alignment == 64 * KIB
        for at, size, byte in ((0, 256 * KIB, 1), (300 * KIB, 1000, 2), (SIZE - 512, 512, 3)):
            await disk.write(at, bytes([byte]) * size)
            content[at : at + size] = bytes([byte]) * size
        await disk.write(10, b"again")
        content[10:15] = b"again"
        await disk.write_zeroes(128 * KIB, 64 * KIB)
        content[128 * KIB : 192 * KIB] = bytes(64 * KIB)
        assert await disk.read(0, SIZE) == content
        await disk.close()

    ours.call(write)
    ours.answers([("blockdev-del", {"node-name": "c"})])
    checked = json.loads(run(IMG, "check", "--output=json", image))
    assert checked["check-errors"] == 0
    assert checked["compressed-clusters"] == checked["allocated-clusters"] == 5
    run(IMG, "convert", "-O", "raw", image, tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == content


def test_formats_are_those_that_a_real_daemon_takes(image: Path, same: Any) -> None:
    null = {"driver": "null-co", "size": 65536}
    file = {"driver": "file", "filename": str(image)}
    same(
        [
            add(driver="compress", node_name="c", file=null),
            add(driver="compress", node_name="c", file=file),
            add(driver="compress", node_name="c", file={"driver": "raw", "file": file}),
            add(driver="compress", node_name="c"),
            add(driver="compress", node_name="c", file=qcow2(image)),
            (
                "blockdev-reopen",
                {"options": [{"driver": "compress", "node-name": "c", "file": "q"}]},
            ),
            ("block_resize", {"node-name": "c", "size": 2 * SIZE}),
            ("blockdev-del", {"node-name": "c"}),
            add(driver="compress", node_name="c", file=qcow2(image), read_only=True),
            ("blockdev-del", {"node-name": "c"}),
        ]
    )


def test_a_filter_in_between_is_asked_through(image: Path, ours: Any) -> None:
    below = {"driver": "compress", "node-name": "inner", "file": qcow2(image)}
    assert ours.answers([add(driver="compress", node_name="c", file=below)]) == [{}]


def test_data_that_does_not_shrink_can_be_overwritten(image: Path, ours: Any) -> None:
    ours.answers([add(driver="compress", node_name="c", file=qcow2(image))])
    content = bytearray(os.urandom(128 * KIB)) + bytes(128 * KIB)

    async def write() -> None:
        disk = await ours.yard.attach("c")
        await disk.write(0, content[: 128 * KIB])
        content[64 * KIB : 192 * KIB] = b"x" * (128 * KIB)
        await disk.write(64 * KIB, content[64 * KIB : 192 * KIB])
        assert await disk.read(0, len(content)) == content
        await disk.close()

    ours.call(write)
    ours.answers([("blockdev-del", {"node-name": "c"})])
    checked = json.loads(run(IMG, "check", "--output=json", image))
    assert checked["compressed-clusters"] == 1
    assert checked["allocated-clusters"] == 3
