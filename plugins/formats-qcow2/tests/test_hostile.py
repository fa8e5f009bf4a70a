# SPDX-License-Identifier: Apache-2.0
"""Hostile images in the daemon: each gets an answer in time, and another client is served on.

Nothing is asked of the answers but that they come: whether an image is refused, and in
which words, is compared with QEMU elsewhere.
"""

import importlib.util
import json
import os
import random
import struct
import zlib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MIB = 1 << 20


def load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


damage = load("damage")
served = load("served")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, qemu_io):
    found = served.Daemon(tmp_path_factory.mktemp("daemon"), qemu_io)
    yield found
    found.end()


@pytest.fixture(scope="module")
def made(tmp_path_factory, qemu_img, qemu_io):
    """``made(options)``: a good image's bytes, with a snapshot, bitmaps and compressed data."""
    folder, kept = tmp_path_factory.mktemp("made"), {}

    def make(options=""):
        if options not in kept:
            path = folder / f"{len(kept)}.qcow2"
            words = ["-o", options] if options else []
            qemu_img("create", "-q", "-f", "qcow2", *words, path, "8M")
            qemu_io(path, "write -P 1 0 300k", "write -c -P 2 2M 64k", "write -z 1M 100k")
            qemu_img("snapshot", "-c", "one", path)
            qemu_img("bitmap", "--add", path, "b")
            qemu_io(path, "write -P 3 250k 90k")
            kept[options] = path.read_bytes()
        return kept[options]

    return make


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory, qemu_img):
    """A LUKS image's bytes."""
    path = tmp_path_factory.mktemp("encrypted") / "a.qcow2"
    words = ["--object", "secret,id=s,data=abc", "-o", LUKS]
    qemu_img("create", "-q", "-f", "qcow2", *words, path, "4M")
    return path.read_bytes()


@pytest.fixture
def image(tmp_path, made):
    """``image(options)``: a fresh copy, to be damaged."""

    def copy(options=""):
        path = tmp_path / "bad.qcow2"
        path.write_bytes(made(options))
        return damage.Image(path)

    return copy


def directory(found):
    """Where the bitmap directory is, and its extension."""
    header = found.read(0, 4096)
    at = header.index(struct.pack(">II", 0x23852875, 24))
    return at, found.get(at + 24)


def backed(found, name, fmt=None):
    """The image names another backing file."""
    text = name if isinstance(name, bytes) else os.fsencode(name)
    found.write(2048, text)
    found.put(8, 2048)
    found.put32(16, len(text))
    words = (
        struct.pack(">II", 0xE2792ACA, len(fmt)) + fmt.ljust(-(-len(fmt) // 8) * 8, b"\0")
        if fmt
        else b""
    )
    found.write(112, words + bytes(16))


def cyclic(found, *, json_name):
    name = str(found.path)
    file = {"driver": "file", "filename": name}
    backed(found, "json:" + json.dumps({"driver": "qcow2", "file": file}) if json_name else name)


def stretched(found):
    """The largest disk, its L1 table in a hole."""
    found.put(24, 1 << 50)
    found.put32(36, 1 << 22)
    found.put(40, 1 << 40)


def everything_is(value, what):
    def spoil(found):
        table = {"l1": found.l1, "l2": found.l2(), "reftable": found.reftable,
                 "refblock": found.refblock(), "snapshots": found.snapshots}[what]  # fmt: skip
        count = found.cluster // 8 if what != "l1" else found.get32(36)
        count = count if what != "snapshots" else 16
        at = value(found) if callable(value) else value
        found.write(table, struct.pack(">Q", at % 2**64) * count)

    return spoil


def snapshot_bomb(found):
    entry = bytes(12) + struct.pack(">HH", 65535, 65535) + bytes(24) + b"n" * 131070
    entry += bytes(-len(entry) % 8)
    at = 16 * MIB
    with found.path.open("r+b") as file:
        file.seek(at)
        file.write(entry * 100)
    found.put32(60, 20000)
    found.put(64, at)


def bitmap_bomb(found):
    """65535 bitmaps, each of the largest table."""
    entry = struct.pack(">QIIBBHI", 16 * MIB, 0x1000, 2, 1, 31, 4, 0)
    at, _ = directory(found)
    with found.path.open("r+b") as file:
        file.seek(32 * MIB)
        for number in range(65535):
            file.write(entry + b"%04x" % number + b"\0\0\0\0")
    found.write(at + 8, struct.pack(">IIQQ", 65535, 0, 65535 * 32, 32 * MIB))


def bitmap_tables(found):
    _, at = directory(found)
    found.put(at, 64 * MIB)
    found.put32(at + 8, 0x2000)
    os.truncate(found.path, 100 * MIB)


def packed(data):
    """A compressed cluster with this data."""

    def spoil(found):
        at = 4 * MIB
        found.write(at, data + bytes(-len(data) % 512))
        sectors = -(-len(data) // 512) - 1
        found.put(found.l2(), damage.COMPRESSED | min(sectors, 255) << 54 | at)

    return spoil


def deflated(length):
    made = zlib.compressobj(9, zlib.DEFLATED, -12)
    return made.compress(bytes(length)) + made.flush()


ZSTD_WINDOW = b"\x28\xb5\x2f\xfd\x00\xf8" + b"\x01\x00\x00" * 20
LUKS = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1"

CASES = {
    "backing loop": ("", lambda i: cyclic(i, json_name=False)),
    "backing loop in json": ("", lambda i: cyclic(i, json_name=True)),
    "backing fifo": ("", lambda i: (os.mkfifo(f"{i.path}.fifo"), backed(i, f"{i.path}.fifo"))),
    "backing fifo, raw": (
        "",
        lambda i: (os.mkfifo(f"{i.path}.fifo"), backed(i, f"{i.path}.fifo", b"raw")),
    ),
    "backing folder": ("", lambda i: backed(i, str(i.path.parent))),
    "backing zero": ("", lambda i: backed(i, "/dev/zero", b"raw")),
    "backing stdin": ("", lambda i: backed(i, "/dev/stdin")),
    "backing terminal": ("", lambda i: backed(i, "/dev/tty")),
    "backing nul": ("", lambda i: backed(i, b"a\0b")),
    "backing bytes": ("", lambda i: backed(i, bytes(range(128, 255)))),
    "backing of nothing": ("", lambda i: backed(i, b"json:{}")),
    "backing nested": ("", lambda i: backed(i, b"json:" + b"[" * 1000)),
    "backing nested in file": (
        "",
        lambda i: backed(i, b'json:{"driver":"raw",' + b'"file":{' * 110 + b"}" * 111),
    ),
    "backing name far away": ("", lambda i: (i.put(8, 1 << 60), i.put32(16, 1023))),
    "backing name too long": ("", lambda i: (i.put(8, 200), i.put32(16, 0xFFFFFFFF))),
    "backing format of noise": ("", lambda i: backed(i, "x", os.urandom(200))),
    "largest disk": ("", stretched),
    "disk of all bits": ("", lambda i: i.put(24, 2**64 - 1)),
    "disk of 2^63": ("", lambda i: i.put(24, 2**63 - 512)),
    "L1 of all bits": ("", lambda i: i.put32(36, 0xFFFFFFFF)),
    "L1 on the header": ("", lambda i: i.put(40, 0)),
    "L1 far away": ("", lambda i: i.put(40, 1 << 62)),
    "L1 on the refcount table": ("", lambda i: i.put(40, i.reftable)),
    "refcount table of 8 MiB": ("", lambda i: i.put32(56, 128)),
    "refcount table of all bits": ("", lambda i: i.put32(56, 0xFFFFFFFF)),
    "refcount table on the header": ("", lambda i: i.put(48, 0)),
    "refcount table on L1": ("", lambda i: i.put(48, i.l1)),
    "refcount order": ("", lambda i: i.put32(96, 200)),
    "header length": ("", lambda i: i.put32(100, 0xFFFFFFF8)),
    "header of a cluster": ("", lambda i: i.put32(100, 65536)),
    "cluster bits": ("", lambda i: i.put32(20, 63)),
    "clusters of 512 bytes": ("", lambda i: i.put32(20, 9)),
    "clusters of 2 MiB": ("", lambda i: i.put32(20, 21)),
    "every feature": ("", lambda i: i.put(72, 2**64 - 1)),
    "data file that nobody has": ("", lambda i: i.put(72, 4)),
    "subclusters": ("", lambda i: i.put(72, 16)),
    "zstd without its header": ("", lambda i: i.put(72, 8)),
    "dirty": ("", lambda i: i.put(72, 1)),
    "corrupt": ("", lambda i: i.put(72, 2)),
    "raw data file": ("", lambda i: i.put(88, 2)),
    "encryption without a header": ("", lambda i: i.put32(32, 2)),
    "old encryption": ("", lambda i: i.put32(32, 1)),
    "extension of all bits": ("", lambda i: i.write(112, struct.pack(">II", 7, 0xFFFFFFFF))),
    "features of noise": (
        "",
        lambda i: i.write(112, struct.pack(">II", 0x6803F857, 4800) + os.urandom(4800)),
    ),
    **{
        f"{what} full of {name}": ("", everything_is(value, what))
        for what in ("l1", "l2", "reftable", "refblock", "snapshots")
        for name, value in {
            "zeroes": 0,
            "ones": -1,
            "copied": damage.COPIED,
            "compressed": damage.COMPRESSED,
            "the header": damage.COPIED | 512,
            "L1": lambda i: damage.COPIED | i.l1,
            "L2": lambda i: damage.COPIED | i.l2(),
            "refcounts": lambda i: damage.COPIED | i.refblock(),
            "the far end": damage.OFFSET | damage.COPIED,
        }.items()
    },
    "65536 snapshots": ("", lambda i: i.put32(60, 65536)),
    "snapshots of all bits": ("", lambda i: i.put32(60, 0xFFFFFFFF)),
    "snapshots on L1": ("", lambda i: i.put(64, i.l1)),
    "snapshots behind the end": ("", lambda i: (i.put(64, 1 << 40), i.put32(60, 5000))),
    "snapshots of 128 KiB each": ("", snapshot_bomb),
    "65535 bitmaps": ("", bitmap_bomb),
    "bitmap table of zeroes": ("", bitmap_tables),
    "bitmap directory of 64 MiB": ("", lambda i: i.put(directory(i)[0] + 16, 64 * MIB)),
    "bitmap directory of all bits": ("", lambda i: i.put(directory(i)[0] + 16, 2**64 - 1)),
    "bitmap directory on L1": ("", lambda i: i.put(directory(i)[0] + 24, i.l1)),
    "bitmap table on L1": ("", lambda i: i.put(directory(i)[1], i.l1)),
    "bitmap table of noise": (
        "",
        lambda i: i.write(i.get(directory(i)[1]), os.urandom(64)),
    ),
    "inflates to 64 MiB": ("", packed(deflated(64 * MIB))),
    "inflates to a byte": ("", packed(deflated(1))),
    "inflates for ever": ("", packed(b"\xff" * 70000)),
    "zstd window of 2^41": ("compression_type=zstd", packed(ZSTD_WINDOW)),
    "zstd of noise": ("compression_type=zstd", packed(b"\x28\xb5\x2f\xfd" + os.urandom(60000))),
    "zstd of empty frames": (
        "compression_type=zstd",
        packed(b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00" * 14000),
    ),
    "subclusters of noise": (
        "extended_l2=on,cluster_size=64k",
        lambda i: i.write(i.l2(), os.urandom(65536)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_image_gets_an_answer(case, image, daemon):
    options, spoil = CASES[case]
    found = image(options)
    spoil(found)
    daemon.use(found.path)


SHAPES = ["", "cluster_size=4k", "extended_l2=on,cluster_size=16k", "compression_type=zstd"]


@pytest.mark.parametrize("seed", range(int(os.environ.get("BLOCKYARD_HOSTILE", "12"))))
def test_images_damaged_at_random(seed, image, daemon):
    chance = random.Random(seed)
    found = image(chance.choice(SHAPES))
    damage.at_random(found, chance)
    if chance.random() < 0.3:
        at = chance.choice([8, 16, *range(20, 112, 4), 112, 120, 128])
        found.write(at, chance.randbytes(chance.choice([1, 2, 4, 8])))
    daemon.use(found.path)


def test_a_chain_of_hundreds(tmp_path, made, daemon):
    """The depth is bounded; each image names the one before."""
    names = [tmp_path / f"{number}.qcow2" for number in range(400)]
    for below, path in zip([None, *names], names, strict=False):
        path.write_bytes(made()[: 2 * MIB])
        if below is not None:
            backed(damage.Image(path), str(below), b"qcow2")
    said = daemon.use(names[-1])
    assert said == {} or "too deep" in said or "too long" in said or "backing file" in said
    assert daemon.use(names[20]) == {}


def test_an_image_as_its_own_data_file(tmp_path, qemu_img, daemon):
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'd'}", path, "4M")
    found = damage.Image(path)
    name = str(tmp_path / "d").encode()
    at = found.read(0, 65536).index(name)
    (tmp_path / "d").unlink()
    os.symlink(path, tmp_path / "d")
    daemon.use(path)
    for other in (b"json:{}", b"fat:/etc", b"/dev/zero", b"nbd://x", b"host_device:/dev/null"):
        found.put32(at - 4, len(other))
        found.write(at, other.ljust(len(name), b"\0"))
        daemon.use(path)


def test_what_closing_finds_is_told(tmp_path, image, daemon):
    """A bitmap that is stored anew frees what it had: here the refcounts themselves."""
    found = image()
    found.put(found.get(directory(found)[1]), found.refblock())
    file = {"driver": "file", "filename": str(found.path)}
    for number in range(5):  # what is told races with the image's end
        assert (
            daemon.ask("blockdev-add", **{"driver": "qcow2", "node-name": f"n{number}"}, file=file)
            == {}
        )
        del daemon.events[:]
        assert daemon.ask("blockdev-del", **{"node-name": f"n{number}"}) == {}
        daemon.ask("query-named-block-nodes")
        told = [each["data"] for each in daemon.events if each["event"] == "BLOCK_IMAGE_CORRUPTED"]
        assert [each["node-name"] for each in told] == [f"n{number}"]
        assert "holds metadata" in told[0]["msg"]
        spoil = damage.Image(found.path)
        spoil.put(spoil.get(directory(spoil)[1]), spoil.refblock())
    assert "Traceback" not in (daemon.folder / "log").read_text()


@pytest.mark.parametrize(
    ("at", "data"),
    [
        (164, b"\0\0\0\0"),
        (212, b"\0\0\0\0"),
        (108, b"\xff\xff\xff\xff"),
        (104, b"\xff\xff\xff\xff"),
        (248, b"\xff\xff\xff\xff"),
        (252, b"\xff\xff\xff\xff"),
        (252, b"\0\0\0\0"),
        (8, b"rot13".ljust(32, b"\0")),
        (40, b"xts-plain64:" + b"x" * 20),
        (72, b"x" * 32),
        (0, b"\xff" * 592),
    ],
)
def test_luks_headers(at, data, tmp_path, encrypted, daemon):
    """LUKS On-Disk Format Specification, 2.1: rounds, stripes, lengths, offsets, names.

    Rounds without end take half a minute, and are tested where they are made.
    """
    path = tmp_path / "a.qcow2"
    path.write_bytes(encrypted)
    found = damage.Image(path)
    begin = found.read(0, MIB).index(b"LUKS\xba\xbe")
    found.write(begin + at, data)
    daemon.use(path, encrypt={"format": "luks", "key-secret": "s"})


def test_luks_headers_that_are_elsewhere(tmp_path, encrypted, daemon):
    path = tmp_path / "a.qcow2"
    path.write_bytes(encrypted)
    found = damage.Image(path)
    at = found.read(0, 4096).index(struct.pack(">II", 0x0537BE77, 16)) + 8
    good = found.read(at, 16)
    for fields in [(0, 592), (65536, 0), (1 << 62, 592), (65536, 2**64 - 1), (1, 1), (65536, 592)]:
        found.write(at, struct.pack(">QQ", *fields))
        daemon.use(path, encrypt={"format": "luks", "key-secret": "s"})
    found.write(at, good)
    assert daemon.use(path, encrypt={"format": "luks", "key-secret": "s"}) == {}
