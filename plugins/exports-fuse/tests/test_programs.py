# SPDX-License-Identifier: Apache-2.0
"""Real programs on the file, and what is then in the image."""

import os

import pytest

MIB = 1 << 20


@pytest.fixture
def shown(files, run):
    """A qcow2 image of 16 MiB, shown as a growable file."""
    files.qcow2 = files.folder / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", files.qcow2, "16M")
    run("qemu-io", "-c", "write -P 3 1M 2M", files.qcow2)
    files.execute(
        "blockdev-add", driver="qcow2", node_name="q", discard="unmap",
        file={"driver": "file", "filename": str(files.qcow2), "discard": "unmap"},
    )  # fmt: skip
    files.path = files.export("q", writable=True, growable=True)
    return files


def finish(shown, run):
    """The image as a raw file, when it is closed and sound."""
    shown.delete()
    shown.execute("blockdev-del", node_name="q")
    run("qemu-img", "check", "-q", shown.qcow2)
    raw = shown.folder / "found.raw"
    run("qemu-img", "convert", "-O", "raw", shown.qcow2, raw)
    return raw.read_bytes()


def test_qemu_img_sees_the_disk(shown, run):
    assert "virtual size: 16 MiB" in run("qemu-img", "info", "-f", "raw", shown.path)
    run("qemu-img", "compare", "-U", "-f", "raw", "-F", "qcow2", shown.path, shown.qcow2)
    mapped = run("qemu-img", "map", "-f", "raw", "--output=json", shown.path)
    assert (
        '"start": 1048576, "length": 2097152, "depth": 0, "present": true, "zero": false' in mapped
    )


def test_qemu_io_writes_to_the_disk(shown, run):
    commands = [
        "write -P 5 0 64k", "write -z 1M 64k", "write -zu 2M 512k", "discard 1536k 64k",
        "aio_write -P 9 8M 1M", "aio_write -P 10 9M 1M", "aio_flush", "flush", "write -P 1 513 3",
    ]  # fmt: skip
    words = [word for command in commands for word in ("-c", command)]
    run("qemu-io", "-f", "raw", *words, shown.path)
    run("qemu-io", "-f", "raw", "-t", "none", "-c", "write -P 6 4M 64k", shown.path)
    expected = bytearray(16 * MIB)
    expected[MIB : 3 * MIB] = b"\3" * (2 * MIB)
    for at, length, byte in [
        (0, 64 << 10, 5), (MIB, 64 << 10, 0), (2 * MIB, 512 << 10, 0), (1536 << 10, 64 << 10, 0),
        (8 * MIB, MIB, 9), (9 * MIB, MIB, 10), (513, 3, 1), (4 * MIB, 64 << 10, 6),
    ]:  # fmt: skip
        expected[at : at + length] = bytes([byte]) * length
    assert shown.path.read_bytes() == expected
    assert finish(shown, run) == expected


def test_growing_a_format(shown, run):
    with shown.path.open("r+b", buffering=0) as file:
        os.ftruncate(file.fileno(), 20 * MIB)
        file.seek(24 * MIB)
        file.write(b"x" * 4096)
    expected = bytes(MIB) + b"\3" * 2 * MIB + bytes(21 * MIB) + b"x" * 4096
    assert shown.path.read_bytes() == expected
    assert finish(shown, run) == expected


def test_an_image_on_the_file(files, run):
    """A file node's file as the storage of an image, as QEMU's own suite uses it."""
    files.add_disk()
    path = files.export("file", writable=True, growable=True, allow_other="off")
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "64M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 3M", "-c", "write -z 10M 1M", path)
    run("qemu-io", "-f", "qcow2", "-t", "none", "-c", "read -P 7 0 3M", path)
    run("qemu-img", "check", "-q", "-f", "qcow2", path)
    files.delete()
    run("qemu-img", "check", "-q", "-f", "qcow2", files.image)
    run("qemu-io", "-f", "qcow2", "-c", "read -P 7 0 3M", files.image)


def test_copies(files, run):
    files.add_disk(os.urandom(3 * MIB + 512), 8 * MIB)
    path = files.export()
    copy = files.folder / "copy"
    for words in (["cp", "--sparse=always"], ["cp"], ["dd", "bs=64k", "status=none"]):
        run(*words, *([f"if={path}", f"of={copy}"] if words[0] == "dd" else [path, copy]))
        assert copy.read_bytes() == files.image.read_bytes()
