# SPDX-License-Identifier: Apache-2.0
"""Tables that somebody made to be misread: every work ends with a result, whatever they hold."""

import random
import struct

import pytest

MIB = 1 << 20
AT_SIZE, AT_SNAPSHOTS, AT_SNAPSHOT_TABLE = 24, 60, 64


@pytest.fixture(params=["plain", pytest.param("address", marks=pytest.mark.asan)])
def tables(request, native):
    """``tables(image, "snapshot:a")``: its output; it ended by itself, well or with an error."""

    def call(*words):
        done = native.run(request.param, "tables", *words, ok=False)
        assert done.returncode in (0, 1), done.stdout + done.stderr[-4000:]
        return done.stdout

    return call


@pytest.fixture
def image(qemu_img, qemu_io, tmp_path):
    """An image with two snapshots, all kinds of clusters, small ones."""
    path = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=4k", path, "8M")
    qemu_io(path, "write -P 1 0 3M", "write -z 3M 1M", "write -P 2 5M 64k")
    qemu_img("snapshot", "-c", "one", path)
    qemu_io(path, "write -P 3 1M 1M", "write -z 5M 4k")
    qemu_img("snapshot", "-c", "two", path)
    qemu_io(path, "write -P 4 2M 512k")
    return path


def read(path, offset, format_):
    with open(path, "rb") as file:
        file.seek(offset)
        return struct.unpack(format_, file.read(struct.calcsize(format_)))


def put(path, offset, format_, *values):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(struct.pack(format_, *values))


def table_of(path):
    return read(path, AT_SNAPSHOT_TABLE, ">Q")[0]


@pytest.mark.parametrize(
    ("at", "format_", "value", "say"),
    [
        (36, ">I", 1025, "Too much extra metadata in snapshot table entry 0"),
        (36, ">I", 0xFFFFFFFF, "Too much extra metadata in snapshot table entry 0"),
    ],
)
def test_snapshot_entries(tables, image, at, format_, value, say):
    put(image, table_of(image) + at, format_, value)
    assert say in tables(image, "list")


def test_snapshot_table_places(tables, image):
    put(image, AT_SNAPSHOT_TABLE, ">Q", 513)
    assert "Snapshot table offset invalid" in tables(image, "list")
    put(image, AT_SNAPSHOT_TABLE, ">Q", 1 << 63)
    assert "Snapshot table offset invalid" in tables(image, "list")
    put(image, AT_SNAPSHOTS, ">IQ", 65537, 4096)
    assert "Snapshot table too large" in tables(image, "list")
    put(image, AT_SNAPSHOTS, ">IQ", 65536, 1 << 40)  # nothing is there: 65536 empty entries
    assert tables(image, "list").count("vm=0") == 65536


def test_snapshot_table_too_big(tables, image):
    with open(image, "r+b") as file:
        file.seek(64 * MIB)
        for _ in range(600):  # 128 KiB each
            file.write(bytes(12) + b"\xff\xff\xff\xff" + bytes(24) + bytes(131070))
            file.seek(-file.tell() % 8, 1)
        file.truncate()
    put(image, AT_SNAPSHOTS, ">IQ", 600, 64 * MIB)
    assert "Snapshot table is too big" in tables(image, "list")


def test_snapshot_l1_places(tables, qemu_img, image):
    entry = table_of(image)
    offset, size = read(image, entry, ">QI")
    for work in ("apply:0", "delete:0"):
        put(image, entry, ">QI", offset + 512, size)
        assert "Snapshot L1 table offset invalid" in tables(image, work)
        put(image, entry, ">QI", 1 << 63, size)
        assert "Snapshot L1 table offset invalid" in tables(image, work)
        put(image, entry, ">QI", offset, (32 << 20) // 8 + 1)
        assert "Snapshot L1 table too large" in tables(image, work)
    put(image, entry, ">QI", offset, size)
    assert "No errors" in qemu_img("check", image)


def test_an_l2_table_named_twice(tables, image):
    offset, _ = read(image, table_of(image), ">QI")
    first, second = read(image, offset, ">QQ")
    put(image, offset, ">QQ", first, first)
    assert f"apply:0 {-5}" in tables(image, "apply:0")
    put(image, offset, ">QQ", first, second)
    active = read(image, 40, ">Q")[0]
    put(image, active, ">Q", read(image, active + 8, ">Q")[0])
    assert "snapshot:x -5" in tables(image, "snapshot:x")


def test_references_that_nobody_counts(tables, image):
    """An entry that names a cluster far away is not given a refcount."""
    active = read(image, 40, ">Q")[0]
    l2 = read(image, active, ">Q")[0] & 0x00FFFFFFFFFFFE00
    put(image, l2 + 80, ">Q", 1 << 50 | 1 << 63)
    before = image.stat().st_size
    assert "snapshot:x -5" in tables(image, "snapshot:x")
    assert image.stat().st_size < before + MIB


def test_vm_state_leaves_the_disk(tables, qemu_img, qemu_io, tmp_path):
    """What is behind the disk in L1 is a snapshot's once it is taken, and comes back with it."""
    path = tmp_path / "state"
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=4k", path, "8M")
    qemu_io(path, "write -P 1 0 2M", "write -P 2 2M 6M")
    put(path, AT_SIZE, ">Q", 2 * MIB)
    tables(path, f"snapshot:with:{6 * MIB}")
    assert "No errors" in qemu_img("check", path)
    l1, size = read(path, 40, ">Q")[0], read(path, 36, ">I")[0]
    assert read(path, l1 + 8, f">{size - 1}Q") == (0,) * (size - 1)
    assert "6 MiB" in qemu_img("snapshot", "-l", path)
    tables(path, "apply:0")
    assert "No errors" in qemu_img("check", path)
    put(path, AT_SIZE, ">Q", 8 * MIB)
    qemu_io(path, "read -P 1 0 2M", "read -P 2 2M 6M")
    put(path, AT_SIZE, ">Q", 2 * MIB)
    tables(path, f"resize:{4 * MIB}")  # none of it becomes the guest's
    qemu_io(path, "read -P 1 0 2M", "read -P 0 2M 2M")
    assert "No errors" in qemu_img("check", path)


WORKS = [
    ["snapshot:x", "delete:0", "apply:0"],
    ["apply:1", "delete:1", "snapshot:y"],
    [f"resize:{MIB}", f"resize:{20 * MIB}"],
    ["refcounts:6", "refcounts:3"],
    ["delete:0", "delete:0", "version:2"],
    ["preallocate:1", "clean", "list"],
]


@pytest.mark.parametrize("seed", range(8))
def test_anything(tables, image, tmp_path, seed):
    """Bits and fields changed anywhere in the tables."""
    chance = random.Random(seed)
    good = image.read_bytes()
    tops = [0, read(image, 40, ">Q")[0], read(image, 48, ">Q")[0], table_of(image)]
    tops += [o & 0x00FFFFFFFFFFFE00 for o in read(image, tops[1], ">4Q")]
    tops += [read(image, tops[2], ">Q")[0], read(image, tops[3], ">Q")[0]]
    bad = tmp_path / "bad"
    for round_ in range(12):
        content = bytearray(good)
        for _ in range(chance.choice([1, 1, 2, 8])):
            at = chance.choice(tops) + chance.randrange(0, 160)
            if at < 24 or 32 <= at < 36 or 72 <= at < 112:
                continue  # Python has looked at these
            value = chance.choice(
                [0, 1, 0xFF, 0xFFFFFFFFFFFFFFFF, 1 << 63, 4096, chance.getrandbits(64)]
            )
            size = chance.choice([1, 2, 4, 8])
            content[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "big")
        bad.write_bytes(content)
        tables(bad, "overlap=0x1ff" if round_ % 2 else "overlap=0", *WORKS[round_ % len(WORKS)])
