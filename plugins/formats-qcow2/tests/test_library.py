# SPDX-License-Identifier: Apache-2.0
"""Images opened by programs: over files, file objects and nodes, with all that can be asked."""

import contextlib
import io
import json
import re
import struct
from pathlib import Path

import anyio
import pytest

from blockyard import Yard
from blockyard.errors import BlockyardError, InvalidOption, NotFound
from blockyard_formats_qcow2 import open_image, open_in

MIB = 1 << 20


@pytest.fixture
def path(tmp_path, qemu_img, qemu_io):
    """A backing file, data, zeroes, a compressed cluster, a snapshot, two bitmaps."""
    (tmp_path / "base.raw").write_bytes(b"b" * (2 * MIB))
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", tmp_path / "base.raw", "-F", "raw", path, "4M")
    qemu_io(path, "write -P 1 0 64k", "write -z 64k 64k", "write -c -P 2 128k 64k")
    qemu_img("snapshot", "-c", "before", path)
    qemu_img("bitmap", "--add", path, "all")
    qemu_img("bitmap", "--add", "--disable", "-g", "4096", path, "kept")
    qemu_io(path, "write -P 3 192k 100k")
    return path


@contextlib.contextmanager
def sources(path, kind):
    file = {"driver": "file", "filename": str(path)}
    with path.open("rb") as buffered, path.open("rb", buffering=0) as raw:
        yield {
            "path": path,
            "text": str(path),
            "file": buffered,
            "unbuffered file": raw,
            "memory": io.BytesIO(path.read_bytes()),
            "node": {"driver": "raw", "read-only": True, "file": file},
        }[kind]


@pytest.mark.parametrize("kind", ["path", "text", "file", "unbuffered file", "memory", "node"])
def test_an_image_is_read_from_anything(kind, path):
    with sources(path, kind) as source, open_image(source) as image:
        assert image.length == 4 * MIB
        assert image.read_only
        assert image.read(0, 65536) == b"\1" * 65536
        assert image.read(100_000, 10) == bytes(10)
        assert image.read(128 << 10, 65536) == b"\2" * 65536
        assert image.read(192 << 10, 100 << 10) == b"\3" * (100 << 10)
        assert image.read(2 * MIB - 5, 10) == b"bbbbb" + bytes(5)


def test_snapshots_are_listed_and_read(path):
    with open_image(path) as image:
        (found,) = image.snapshots()
        assert (found.id, found.name, found.vm_state_size) == ("1", "before", 0)
    for name in ("1", "before"):
        with open_image(path, snapshot=name) as image:
            assert image.read(0, 65536) == b"\1" * 65536
            assert image.read(192 << 10, 100 << 10) == b"b" * (100 << 10)
    with pytest.raises(OSError, match="No such file"), open_image(path, snapshot="missing"):
        pass
    with pytest.raises(InvalidOption), open_image(path, snapshot="before", writable=True):
        pass


def test_a_snapshot_of_another_length_is_as_long_as_it_was(tmp_path, qemu_img, qemu_io):
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    qemu_io(path, "write -P 1 0 1M")
    qemu_img("snapshot", "-c", "short", path)
    qemu_img("resize", "-q", path, "2M")
    with open_image(path) as image:
        assert image.length == 2 * MIB
    with open_image(path, snapshot="short") as image:
        assert image.length == MIB
        assert image.read(MIB - 10, 10) == b"\1" * 10


def test_bitmaps_are_listed_and_show_what_has_changed(path):
    with open_image(path) as image:
        found = {each.name: each for each in image.bitmaps()}
        assert found["all"].granularity == 65536
        assert found["all"].recording
        assert found["kept"].granularity == 4096
        assert not found["kept"].recording
        assert not found["all"].in_use
        assert image.dirty("all") == [(192 << 10, 128 << 10)]
        assert image.dirty("kept") == []
        with pytest.raises(NotFound, match="Dirty bitmap 'other' not found"):
            image.dirty("other")


def test_a_bitmap_that_was_not_stored_is_not_trusted(path):
    data = bytearray(path.read_bytes())
    # Sections "Bitmaps extension" and "Bitmap directory": which entry is whose is in its end.
    extension = data.index(struct.pack(">II", 0x23852875, 24))
    (directory,) = struct.unpack(">Q", data[extension + 24 : extension + 32])
    at = data.index(b"all", directory) - 24
    assert data[at + 12 : at + 16] == b"\0\0\0\2"
    data[at + 15] |= 1
    with open_image(io.BytesIO(bytes(data))) as image:
        assert {each.name: each.in_use for each in image.bitmaps()} == {"all": True, "kept": False}
        with pytest.raises(InvalidOption, match="inconsistent"):
            image.dirty("all")


def test_the_map_is_qemus(path, qemu_img):
    theirs = json.loads(qemu_img("map", "--output=json", path))
    with open_image(path) as image:
        ours = list(image.map())
    assert [each.offset for each in ours] == [0, *(e.offset + e.length for e in ours[:-1])]
    for one in theirs:
        inside = [e for e in ours if one["start"] <= e.offset < one["start"] + one["length"]]
        assert sum(e.length for e in inside) == one["length"]
        for each in inside:
            assert (each.data, each.zero) == (one["data"], one["zero"])
            assert each.compressed == one["compressed"]
            if one["present"]:
                assert each.depth == one["depth"]
            if "offset" in one:
                assert each.host_offset == one["offset"] + each.offset - one["start"]


def test_what_is_told_of_the_image(path, qemu_img):
    theirs = json.loads(qemu_img("info", "--output=json", path))["format-specific"]["data"]
    with open_image(path) as image:
        assert image.info() == theirs
        result = image.check()
        assert (result.corruptions, result.leaks, result.check_errors) == (0, 0, 0)


def test_writing_to_a_file_object(tmp_path, qemu_img):
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "4M")
    memory = io.BytesIO(path.read_bytes())
    with open_image(memory, writable=True) as image:
        image.write(MIB, b"written")
        image.flush()
    path.write_bytes(memory.getvalue())
    assert "No errors" in qemu_img("check", path)
    with open_image(path) as image:
        assert image.read(MIB - 1, 9) == b"\0written\0"


def test_objects_that_do_not_do(path, tmp_path):
    with (
        path.open("rb") as file,
        pytest.raises(InvalidOption, match="not writable"),
        open_image(file, writable=True),
    ):
        pass

    class Pipe(io.RawIOBase):
        def seekable(self):
            return False

    with pytest.raises(InvalidOption, match="not seekable"), open_image(Pipe()):
        pass
    with (
        pytest.raises(BlockyardError, match="Image is not in qcow2 format"),
        open_image(io.BytesIO(bytes(1024))),
    ):
        pass


def test_encrypted_images_and_their_keys(tmp_path, qemu_img, qemu_io):
    path = tmp_path / "a.qcow2"
    words = ["--object", "secret,id=s,data=abc"]
    options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1"
    qemu_img("create", "-q", "-f", "qcow2", *words, "-o", options, path, "1M")
    named = f"driver=qcow2,encrypt.key-secret=s,file.filename={path}"
    qemu_io(named, "write -P 5 0 64k", options=[*words, "--image-opts"])
    encrypt = {"format": "luks", "key-secret": "k"}
    with open_image(path, secrets={"k": b"abc"}, encrypt=encrypt) as image:
        assert image.read(0, 65536) == b"\5" * 65536
        assert image.info()["encrypt"]["format"] == "luks"
    with (
        pytest.raises(BlockyardError, match="Invalid password"),
        open_image(path, secrets={"k": b"wrong"}, encrypt=encrypt),
    ):
        pass


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_asynchronous_form(path, backend):
    async def main():
        async with Yard() as yard:
            name = {"driver": "file", "filename": str(path), "read-only": True}
            async with await yard.open(name) as file, await open_in(yard, file.node) as image:
                assert [each.name for each in await image.snapshots()] == ["before"]
                assert list(image.dirty("all")) == [(192 << 10, 128 << 10)]
                extents = [each async for each in image.map(0, 192 << 10)]
                assert [each.compressed for each in extents] == [False, False, True]
                assert (await image.check()).corruptions == 0
            key = {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}
            async with await open_in(yard, path, snapshot="before", backing=None) as image:
                assert await image.read(192 << 10, 4) == bytes(4)
            assert not yard.objects.find("k")
            with pytest.raises(BlockyardError):
                await open_in(yard, key, secrets={"k": b"x"})
            assert not yard.objects.find("k")
            assert not yard.graph.nodes

    anyio.run(main, backend=backend)


def test_the_readmes_examples_run(tmp_path, qemu_img, qemu_io, monkeypatch):
    monkeypatch.chdir(tmp_path)
    qemu_img("create", "-q", "-f", "qcow2", "disk.qcow2", "4M")
    qemu_img("snapshot", "-c", "monday", "disk.qcow2")
    qemu_img("bitmap", "--add", "disk.qcow2", "since-monday")
    qemu_io("disk.qcow2", f"write -P {ord('1')} 1M 1M")
    words = ["--object", "secret,id=s,data=sesame", "-o"]
    options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1"
    qemu_img("create", "-q", "-f", "qcow2", *words, options, "secret.qcow2", "1M")
    text = (Path(__file__).parents[1] / "README.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(examples) == 4
    for example in examples:
        exec(compile(example, "README.md", "exec"), {"__name__": "example"})
    with open_image("secret.qcow2", secrets={"key": b"sesame"},
                    encrypt={"format": "luks", "key-secret": "key"}) as image:  # fmt: skip
        assert image.read(4096, 5) == b"hello"
