# SPDX-License-Identifier: Apache-2.0
"""Raw images: parts of files, resizing, creation, and the guard of guessed ones."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from blockyard.errors import BlockyardError, ImageIOError
from blockyard.permission import ALL, Perm
from blockyard.schema import visit
from blockyard.schema.block import BlockdevOptions
from blockyard.yard import Yard
from blockyard_formats_raw.driver import RawDriver, other_format
from blockyard_formats_raw.schema import BlockdevCreateOptionsRaw

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

MIB = 1 << 20


def in_yard(function: Callable[[Any], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with Yard() as yard:
            try:
                return await function(yard), None
            except Exception as error:
                return None, error

    result, error = anyio.run(main)
    if error:
        raise error
    return result


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(MIB))
    return path


def raw(image: Path, **more: Any) -> dict[str, Any]:
    return {"driver": "raw", "file": {"driver": "file", "filename": str(image)}, **more}


# -- parts


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (
            {"offset": MIB + 1},
            "Offset (1048577) cannot be greater than size of the containing file (1048576)",
        ),
        (
            {"offset": 4096, "size": MIB},
            (
                "The sum of offset (4096) and size (1048576) has to be smaller or equal to the  "
                "actual size of the containing file (1048576)"
            ),
        ),
        ({"size": 1000}, "Specified size is not multiple of 512"),
        ({"offset": -1}, "Value '-1' is out of range for parameter 'offset'"),
        ({"size": -512}, "Value '-512' is out of range for parameter 'size'"),
    ],
)
def test_parts_that_do_not_lie_in_the_file(image: Path, part: Any, text: str) -> None:
    async def attempt(yard: Any) -> None:
        await yard.open(raw(image, **part))

    with pytest.raises(BlockyardError) as caught:
        in_yard(attempt)
    assert str(caught.value) == text


def test_a_part_is_that_part(image: Path) -> None:
    data = image.read_bytes()

    async def check(yard: Any) -> None:
        async with await yard.open(raw(image, offset=1000, size=8192)) as disk:
            assert disk.length == 8192
            assert await disk.read(0, 8192) == data[1000:9192]
            with pytest.raises(ImageIOError):
                await disk.read(8000, 512)
            with pytest.raises(ImageIOError):
                await disk.write(8192, b"beyond")
            await disk.write(8191, b"!")
            await disk.write_zeroes(0, 10)
            status = await disk.block_status(512, 1024)
            assert status.host_offset == 1512
            assert status.owner is disk.node.children["file"].node
            await disk.flush()

    in_yard(check)
    assert image.read_bytes() == data[:1000] + bytes(10) + data[1010:9191] + b"!" + data[9192:]


def test_reopening_with_another_part(image: Path) -> None:
    data = image.read_bytes()

    async def check(yard: Any) -> None:
        file = {"driver": "file", "node-name": "f", "filename": str(image)}
        await yard.graph.add(visit(BlockdevOptions, file))
        common = {"driver": "raw", "node-name": "r", "file": "f"}
        node = await yard.graph.add(visit(BlockdevOptions, common))
        root = await yard.graph.attach_root(node, Perm.CONSISTENT_READ, ALL)
        await yard.graph.reopen([visit(BlockdevOptions, {**common, "offset": 512, "size": 1024})])
        assert node.length == 1024
        assert await root.access.read(0, 1024) == data[512:1536]
        with pytest.raises(BlockyardError, match="cannot be greater"):
            await yard.graph.reopen([visit(BlockdevOptions, {**common, "offset": MIB + 512})])
        assert node.length == 1024
        await yard.graph.reopen([visit(BlockdevOptions, common)])
        assert node.length == MIB

    in_yard(check)


# -- resizing and creating


def test_resizing_behind_an_offset(image: Path) -> None:
    async def check(yard: Any) -> None:
        options = visit(BlockdevOptions, raw(image, **{"node-name": "r", "offset": 4096}))
        node = await yard.graph.add(options)
        for length in (2 * MIB, 512, 8192):
            await yard.graph.resize(node, length)
            assert node.length == length
            assert image.stat().st_size == length + 4096

    in_yard(check)


def test_a_fixed_size_stays(image: Path) -> None:
    async def attempt(yard: Any) -> None:
        options = visit(BlockdevOptions, raw(image, **{"node-name": "r", "size": 4096}))
        await yard.graph.resize(await yard.graph.add(options), 512)

    with pytest.raises(BlockyardError, match=r"^Cannot resize fixed-size raw disks$"):
        in_yard(attempt)


def test_a_file_that_cannot_grow_says_so_in_its_own_words(image: Path) -> None:
    async def work(yard: Any) -> None:
        node = await yard.graph.add(visit(BlockdevOptions, raw(image, **{"node-name": "r"})))
        await yard.graph.resize(node, 1 << 60)

    with pytest.raises(BlockyardError, match=r"^Could not resize file: File too large$"):
        in_yard(work)
    assert image.stat().st_size == MIB


def test_copying_from_part_to_part(image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(bytes(MIB))
    data = image.read_bytes()

    async def check(yard: Any) -> None:
        async with (
            await yard.open(raw(image, offset=512, **{"read-only": True})) as source,
            await yard.open(raw(other, offset=1024, size=65536)) as target,
        ):
            await source.root.access.copy_range(100, 5000, target.root.access, 2000)
            assert await target.read(2000, 5000) == data[612:5612]
            with pytest.raises(ImageIOError):
                await source.root.access.copy_range(0, 5000, target.root.access, 65536 - 4999)

    in_yard(check)
    assert other.read_bytes() == bytes(3024) + data[612:5612] + bytes(MIB - 8024)


@pytest.mark.parametrize("prealloc", [None, "off", "falloc", "full"])
def test_creating_in_a_file(image: Path, prealloc: str | None) -> None:
    async def check(yard: Any) -> None:
        file = visit(BlockdevOptions, {"driver": "file", "filename": str(image)})
        options = BlockdevCreateOptionsRaw(file=file, size=2 * MIB, preallocation=prealloc)
        await RawDriver.create(options, yard)
        assert not yard.graph.nodes

    in_yard(check)
    assert image.read_bytes() == bytes(2 * MIB)
    assert (image.stat().st_blocks * 512 >= 2 * MIB) is (prealloc in ("falloc", "full"))


def test_what_cannot_be_created(image: Path) -> None:
    async def attempt(yard: Any) -> None:
        file = visit(BlockdevOptions, {"driver": "file", "filename": str(image)})
        options = BlockdevCreateOptionsRaw(file=file, size=MIB * 2, preallocation="metadata")
        await RawDriver.create(options, yard)

    with pytest.raises(BlockyardError, match=r"^Unsupported preallocation mode: metadata$"):
        in_yard(attempt)

    async def attempt_missing(yard: Any) -> None:
        await RawDriver.create(BlockdevCreateOptionsRaw(file="nobody", size=MIB), yard)

    with pytest.raises(BlockyardError, match="Cannot find device='nobody' nor node-name='nobody'"):
        in_yard(attempt_missing)


# -- the guard

HEADERS = {
    "qcow": b"QFI\xfb\0\0\0\1",
    "qcow2": b"QFI\xfb\0\0\0\3",
    "qed": b"QED\0",
    "vhdx": b"vhdxfile",
    "vpc": b"conectix",
    "luks": b"LUKS\xba\xbe\0\1",
    "vdi": bytes(64) + struct.pack("<I", 0xBEDA107F),
    "parallels": b"WithoutFreeSpace\2\0\0\0",
    "bochs": struct.pack("32s16s16s", b"Bochs Virtual HD Image", b"Redolog", b"Growing"),
}
VMDK = [b"KDMV", b"COWD", b"# Disk DescriptorFile\nversion=1\n", b"\n \r\n# x\n version=3\nCID=1"]


@pytest.mark.parametrize(("name", "header"), [*HEADERS.items(), *(("vmdk", text) for text in VMDK)])
def test_headers_are_recognised(name: str, header: bytes) -> None:
    assert other_format(header.ljust(512, b"\0")) == name


@pytest.mark.parametrize(
    "sector",
    [
        b"",
        b"QFI\xfb",
        b"#!/bin/sh\n",
        b"version=4\n",
        b"version=",
        b"#" * 512,
        b" " * 512,
        b"\n" * 512,
        b"vhdx",
        b"\x55\xaa",
    ],
)
def test_others_are_not(sector: bytes) -> None:
    assert other_format(sector.ljust(512, b"\0")) is None


def test_a_short_sector_is_refused() -> None:
    with pytest.raises(ValueError, match="512"):
        other_format(b"QFI\xfb")


@pytest.mark.parametrize("name", ["qcow2", "qed", "vmdk", "vdi", "vpc", "parallels"])
def test_what_qemu_makes_is_recognised(name: str, tmp_path: Path) -> None:
    program = shutil.which(os.environ.get("BLOCKYARD_QEMU_IMG", "qemu-img"))
    if program is None:
        pytest.skip("qemu-img is not installed")
    path = tmp_path / "image"
    subprocess.run([program, "create", "-q", "-f", name, str(path), "1M"], check=True)
    assert other_format(path.read_bytes()[:512].ljust(512, b"\0")) == name


def guarded(image: Path, **more: Any) -> Any:
    options = visit(BlockdevOptions, raw(image, **more))
    options.u.probed = True
    return options


def test_a_guessed_image_keeps_its_format(image: Path) -> None:
    header = HEADERS["qcow2"].ljust(512, b"\0")
    before = image.read_bytes()

    async def check(yard: Any) -> None:
        node = await yard.graph.add(guarded(image))
        root = await yard.graph.attach_root(node, Perm.CONSISTENT_READ | Perm.WRITE, ALL)
        disk = root.access
        for data in (header, header * 20, header[:8], b"QFI\xfb\0\0\0\2"):
            with pytest.raises(ImageIOError) as caught:
                await disk.write(0, data)
            assert caught.value.errno == errno.EPERM
        assert await disk.read(0, 8192) == before[:8192]
        await disk.write(512, header)
        await disk.write(0, b"boot".ljust(512, b"\0") + b"x" * 1000)
        await disk.write(3, b"more")
        assert await disk.read(0, 514) == b"boomore".ljust(512, b"\0") + b"xx"
        await disk.write_zeroes(0, 1024)
        # In two steps, neither of which is a header.
        await disk.write(4, b"\0\0\0\3")
        with pytest.raises(ImageIOError):
            await disk.write(0, b"QFI\xfb")

    in_yard(check)
    assert image.read_bytes()[:8] == b"\0\0\0\0\0\0\0\3"


def test_an_image_that_is_said_to_be_raw_is_not_guarded(image: Path) -> None:
    async def check(yard: Any) -> None:
        async with await yard.open(raw(image)) as disk:
            await disk.write(0, HEADERS["qcow2"])

    in_yard(check)
    assert image.read_bytes()[:8] == HEADERS["qcow2"]


def test_copying_a_header_into_a_guessed_image(image: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.img"
    source.write_bytes(HEADERS["qcow2"].ljust(4096, b"\0"))

    async def check(yard: Any) -> None:
        node = await yard.graph.add(guarded(image))
        root = await yard.graph.attach_root(node, Perm.WRITE, ALL)
        async with await yard.open(raw(source, **{"read-only": True})) as other:
            with pytest.raises(ImageIOError) as caught:
                await other.root.access.copy_range(0, 4096, root.access, 0)
            assert caught.value.errno == errno.EPERM
            await other.root.access.copy_range(0, 4096, root.access, 4096)

    in_yard(check)
    assert other_format(image.read_bytes()[:512]) is None
