# SPDX-License-Identifier: Apache-2.0
"""blkverify: both disks get what is written, and differences are found."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from blockyard.errors import BlockyardError, ImageIOError
from blockyard.naming import node_filename
from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def pair(folder: Path, size: int) -> dict[str, Any]:
    for name in ("test", "raw"):
        (folder / name).touch()
        os.truncate(folder / name, size)
    return {
        "driver": "blkverify",
        **{
            name: {"driver": "file", "filename": str(folder / name), "discard": "unmap"}
            for name in ("test", "raw")
        },
    }


class TestConformance(ConformanceSuite):
    subject = Subject(make=pair, refused=({"driver": "blkverify", "test": "x", "raw": "y"},))


def spoil(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"?")


def test_both_disks_get_what_is_written(tmp_path: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        disk = await yard.open(pair(tmp_path, MIB))
        await disk.write(1000, b"abc" * 1000)
        await disk.write_zeroes(2000, 500)
        assert await disk.read(900, 5000)
        assert (tmp_path / "test").read_bytes() == (tmp_path / "raw").read_bytes()

    in_yard(scenario)
    assert (tmp_path / "raw").read_bytes()[1000:2000] == (b"abc" * 1000)[:1000]


def test_a_difference_is_told_in_qemus_words(
    tmp_path: Path, in_yard: Any, caplog: Any, qemu: Any
) -> None:
    async def scenario(yard: Any) -> None:
        disk = await yard.open(pair(tmp_path, MIB))
        spoil(tmp_path / "test", 70_123)
        with pytest.raises(ImageIOError) as raised:
            await disk.read(65536, 8192)
        assert raised.value.errno == errno.EIO
        assert await disk.read(0, 4096) == bytes(4096)  # the others are served

    in_yard(scenario)
    said = [record.getMessage() for record in caplog.records]
    name = f"blkverify:{tmp_path / 'raw'}:{tmp_path / 'test'}"
    assert said == qemu.io(name, "read 65536 8192")[-1:]
    assert said == ["blkverify: read offset=65536 bytes=8192 contents mismatch at offset 70123"]


@pytest.mark.parametrize("failing", ["test", "raw"])
def test_one_disk_that_fails(tmp_path: Path, in_yard: Any, caplog: Any, failing: str) -> None:
    async def scenario(yard: Any) -> None:
        options = pair(tmp_path, MIB)
        rules = [{"event": "none", "errno": errno.ENOSPC, "iotype": "write"}]
        options[failing] = {"driver": "blkdebug", "image": options[failing], "inject-error": rules}
        disk = await yard.open(options)
        with pytest.raises(ImageIOError):
            await disk.write(512, b"x" * 512)

    in_yard(scenario)
    assert "blkverify: write offset=512 bytes=512 return value mismatch" in caplog.text


def test_the_name_probes_the_disk_under_test(tmp_path: Path, in_yard: Any) -> None:
    program = shutil.which(os.environ.get("BLOCKYARD_QEMU_IMG", "qemu-img"))
    assert program, "qemu-img is not installed"
    test, raw = tmp_path / "test", tmp_path / "raw"
    subprocess.run([program, "create", "-q", "-f", "qcow2", str(test), "1M"], check=True)
    raw.touch()
    os.truncate(raw, MIB)

    async def scenario(yard: Any) -> str:
        disk = await yard.open_named(f"blkverify:{raw}:{test}", "raw")
        below = disk.node.children["file"].node
        assert below.children["test"].node.type.name == "qcow2"
        assert below.children["raw"].node.type.name == "file"
        await disk.write(4096, b"z" * 4096)
        assert await disk.read(4096, 4096) == b"z" * 4096
        return node_filename(disk.node)

    assert in_yard(scenario) == f"blkverify:{raw}:{test}"
    assert raw.read_bytes()[4096:8192] == b"z" * 4096


def test_names_without_a_second_colon(in_yard: Any) -> None:
    with pytest.raises(BlockyardError) as raised:
        in_yard(lambda yard: yard.open_named("blkverify:x", "raw"))

    assert str(raised.value) == "blkverify requires raw copy and original image path"
