# SPDX-License-Identifier: Apache-2.0
"""Resizing, snapshots, amending, new images: tables that C changes, and QEMU reads."""

import hashlib
import os
import random
import shutil
import struct

import pytest

MIB = 1 << 20


@pytest.fixture(params=["plain", pytest.param("address", marks=pytest.mark.asan)])
def tables(request, native):
    """``tables(image, "resize:1048576")``: its output; ``ok``: must it succeed (None: either)."""

    def call(*words, ok=True):
        done = native.run(request.param, "tables", *words, ok=ok)
        assert done.returncode in (0, 1), done.stderr[-4000:]
        assert ok is not False or done.returncode == 1, done.stdout
        return done.stdout

    return call


@pytest.fixture
def clean(qemu_img):
    """``clean(image)``: QEMU finds neither errors nor leaks."""

    def call(image):
        assert "No errors were found" in qemu_img("check", image)

    return call


@pytest.fixture
def content(qemu_img, tmp_path):
    """``content(image)``: a digest of what the guest reads."""

    def call(image, *options):
        raw = tmp_path / "content.raw"
        qemu_img("convert", *options, "-O", "raw", image, raw)
        return hashlib.sha256(raw.read_bytes()).hexdigest()

    return call


def write_some(
    qemu_io, image, size, seed, count=12, kinds=("write", "write", "write -z", "discard")
):
    """Writes, zeroes and discards anywhere."""
    chance = random.Random(seed)
    commands = []
    for _ in range(count):
        kind = chance.choice(kinds)
        bytes_ = chance.randrange(1, 400) * 512
        offset = chance.randrange(0, (size - bytes_) // 512) * 512
        pattern = "" if kind != "write" else f"-P {chance.randrange(1, 256)} "
        commands.append(f"{kind} {pattern}{offset} {bytes_}")
    qemu_io(image, *commands)


def header(image):
    with open(image, "rb") as file:
        return file.read(104)


def snapshots(qemu_img, image):
    return qemu_img("snapshot", "-l", image)


# ------------------------------------------------------------------ new images


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("bits", [9, 10, 12, 16, 21])
def test_format(tables, clean, qemu_img, qemu_io, tmp_path, bits, order):
    for size in (0, 512, 3 * MIB, 1 << 30):
        image = tmp_path / "new"
        image.unlink(missing_ok=True)
        tables("format", image, size, bits, order, 3, int(bits >= 14), 0)
        clean(image)
        info = qemu_img("info", image)
        assert f"({size} bytes)" in info
        assert f"refcount bits: {1 << order}" in info
    qemu_io(image, "write -P 7 1M 2M", "read -P 7 1M 2M")
    clean(image)


def test_format_large(tables, clean, tmp_path):
    image = tmp_path / "new"
    tables("format", image, 1 << 37, 9, 6, 3, 0, 0)  # a refcount table of many clusters
    clean(image)
    assert "format -27" in tables("format", image, (1 << 37) + 1, 9, 4, 3, 0, 0, ok=False)
    assert "format -27" in tables("format", image, 1 << 62, 21, 4, 3, 0, 1 << 50, ok=False)


@pytest.mark.parametrize(
    ("bits", "order", "version", "extended"),
    [(8, 4, 3, 0), (22, 4, 3, 0), (16, 7, 3, 0), (16, 5, 2, 0), (13, 4, 3, 1), (16, 4, 4, 0)],
)
def test_format_refused(tables, tmp_path, bits, order, version, extended):
    words = ("format", tmp_path / "new", MIB, bits, order, version, extended, 0)
    assert "format -22" in tables(*words, ok=False)


def test_format_over_an_old_image(tables, clean, qemu_img, qemu_io, content, tmp_path):
    image = tmp_path / "new"
    qemu_img("create", "-f", "qcow2", image, "8M")
    qemu_io(image, "write -P 9 0 8M")
    tables("format", image, 8 * MIB, 16, 4, 2, 0, 100000)
    assert "2 leaked clusters" in qemu_img("check", image, ok=False).stdout  # for a LUKS header
    assert content(image) == hashlib.sha256(bytes(8 * MIB)).hexdigest()


# ------------------------------------------------------------------------ size

FORMATS = [
    ("-o", "compat=0.10"),
    (),
    ("-o", "cluster_size=512"),
    ("-o", "cluster_size=4k,refcount_bits=64"),
    ("-o", "cluster_size=2M,refcount_bits=8"),
    ("-o", "extended_l2=on,cluster_size=16k"),
]


@pytest.mark.parametrize("small", [(), ("small", "overlap=0x1ff")])
@pytest.mark.parametrize("options", FORMATS)
def test_grow_and_shrink(tables, clean, qemu_img, qemu_io, tmp_path, options, small):
    image, model = tmp_path / "image", tmp_path / "model"
    size = 5 * MIB + 512
    qemu_img("create", "-f", "qcow2", *options, image, size)
    qemu_img("create", "-f", "raw", model, size)
    for step, target in enumerate((9 * MIB, 300 * MIB, 40 * MIB + 512, 3 * MIB, 64 * MIB, 0, MIB)):
        for path in (image, model):
            if size:
                write_some(qemu_io, path, size, step, kinds=("write", "write -z"))
        told = tables(image, *small, f"resize:{target}")
        if told.startswith("head"):  # as the request does
            _, at, count = told.split()[:3]
            count = min(int(count), target - int(at))
            qemu_io(image, f"write -z {at} {count}")
        os.truncate(model, target)
        if told.startswith("head"):
            qemu_io(model, f"write -z {at} {count}")
        clean(image)
        qemu_img("compare", image, model)
        size = target


def test_resize_head_is_zeroed_before(tables, clean, qemu_img, qemu_io, tmp_path):
    """Data behind the end in the last cluster is told of, and only then."""
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", image, "256k")
    qemu_io(image, "write -P 7 0 256k")
    tables(image, f"resize:{64 * 1024 + 512}")
    assert f"head {64 * 1024 + 512} {64 * 1024 - 512}\n" in tables(image, "resize:131072")
    assert "head" not in tables(image, "resize:262144")
    clean(image)


def test_shrinking_gives_space_back(tables, clean, qemu_img, qemu_io, tmp_path):
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=4k", image, "16M")
    qemu_io(image, "write -P 7 0 16M")
    before = os.path.getsize(image)
    tables(image, f"resize:{MIB}")
    clean(image)
    assert os.path.getsize(image) < before / 8
    qemu_io(image, "read -P 7 0 1M")


def test_backing_does_not_shine_through(tables, clean, qemu_img, qemu_io, tmp_path):
    backing, image = tmp_path / "backing", tmp_path / "image"
    qemu_img("create", "-f", "raw", backing, "4M")
    qemu_io(backing, "write -P 5 0 4M", options=("-f", "raw"))
    qemu_img("create", "-f", "qcow2", "-b", backing, "-F", "raw", image, "1M")
    told = tables(image, f"backing={backing}", f"resize:{6 * MIB}")
    assert "head" not in told
    qemu_io(image, "read -P 5 0 1M", "read -P 0 1M 5M")
    clean(image)
    qemu_img("create", "-f", "qcow2", "-b", backing, "-F", "raw", image, f"{MIB + 512}")
    assert f"head {MIB + 512} {64 * 1024 - 512}" in tables(
        image, f"backing={backing}", f"resize:{6 * MIB}"
    )
    qemu_img("create", "-f", "qcow2", "-o", "compat=0.10", "-b", backing, "-F", "raw", image, "1M")
    assert "Failed to zero out new clusters: Operation not supported" in tables(
        image, f"backing={backing}", f"resize:{6 * MIB}", ok=False
    )
    clean(image)


def test_resize_refused(tables, clean, qemu_img, tmp_path):
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", "-o", "compat=0.10", image, "1M")
    say = "The new size must be a multiple of 512"
    assert say in tables(image, "resize:1000", ok=False)
    say = "Preallocation can't be used for shrinking an image"
    assert say in tables(image, "resize:512:1", ok=False)
    say = "Failed to grow the L1 table: File too large"
    assert say in tables(image, f"resize:{1 << 60}", ok=False)
    qemu_img("snapshot", "-c", "one", image)
    say = "Can't resize a v2 image which has snapshots"
    assert say in tables(image, "resize:2097152", ok=False)
    clean(image)


@pytest.mark.parametrize("options", [o for o in FORMATS if "compat" not in str(o)])
def test_resize_with_snapshots(tables, clean, qemu_img, qemu_io, content, tmp_path, options):
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", *options, image, "8M")
    write_some(qemu_io, image, 8 * MIB, 1)
    whole = content(image)
    tables(image, "snapshot:whole")
    write_some(qemu_io, image, 8 * MIB, 2)
    tables(image, f"resize:{3 * MIB + 1024}")
    clean(image)
    part = content(image)
    tables(image, "snapshot:part", f"resize:{20 * MIB}")
    clean(image)
    write_some(qemu_io, image, 20 * MIB, 3)
    tables(image, "apply:0")
    clean(image)
    assert content(image) == whole
    tables(image, "apply:1", "delete:0")
    clean(image)
    assert content(image) == part
    tables(image, "delete:0")
    clean(image)
    assert content(image) == part


# --------------------------------------------------------------- preallocation


@pytest.mark.parametrize("mode", [1, 2, 3])
@pytest.mark.parametrize("options", FORMATS)
def test_preallocate(tables, clean, qemu_img, qemu_io, content, tmp_path, options, mode):
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", *options, image, "6M")
    qemu_io(image, "write -P 3 1M 1M", "write -P 4 3M 512", "discard 1M 1M", "write -z 4M 100k")
    before = content(image)
    tables(image, f"preallocate:{mode}")
    clean(image)
    assert content(image) == before
    size = os.path.getsize(image)
    qemu_io(image, "write -P 8 0 6M")
    assert os.path.getsize(image) == size  # nothing was left to allocate
    clean(image)
    tables(image, f"resize:{12 * MIB}:{mode}")
    clean(image)
    qemu_io(image, "read -P 8 0 6M", "read -P 0 6M 6M", "write -P 9 6M 6M")
    clean(image)


@pytest.mark.parametrize("raw", ["on", "off"])
@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_external_data(tables, clean, qemu_img, qemu_io, tmp_path, mode, raw):
    image, data = tmp_path / "image", tmp_path / "data"
    options = f"data_file={data},data_file_raw={raw}"
    qemu_img("create", "-f", "qcow2", "-o", options, image, "3M")
    qemu_io(image, "write -P 4 0 2M")
    tables(image, f"data={data}", f"resize:{8 * MIB}:{mode}")
    clean(image)
    assert os.path.getsize(data) == 8 * MIB
    qemu_io(image, "read -P 4 0 2M", "read -P 0 2M 6M", "write -P 5 2M 6M")
    tables(image, f"data={data}", "resize:1048576", f"preallocate:{mode}")
    assert os.path.getsize(data) == MIB
    clean(image)
    qemu_io(image, "read -P 4 0 1M")
    assert "snapshot:one -95" in tables(image, f"data={data}", "snapshot:one", ok=False)


# ------------------------------------------------------------------- snapshots


@pytest.mark.parametrize("small", [(), ("small", "overlap=0x1ff")])
@pytest.mark.parametrize("options", FORMATS)
def test_snapshots(tables, clean, qemu_img, qemu_io, content, tmp_path, options, small):
    """Histories in which QEMU and we take turns."""
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", *options, image, "24M")
    chance = random.Random(str(options))
    kept = []
    for step in range(24):
        write_some(qemu_io, image, 24 * MIB, chance.random(), 4)
        now = content(image)
        action = chance.choice(["create", "create", "delete", "apply"])
        ours = chance.random() < 0.7
        if action == "create" or not kept:
            kept.append((f"s{step}", now))
            if ours:
                tables(image, *small, f"snapshot:s{step}")
            else:
                qemu_img("snapshot", "-c", f"s{step}", image)
        else:
            at = chance.randrange(len(kept))
            name, then = kept[at]
            now = then if action == "apply" else now
            if action == "delete":
                kept.pop(at)
            if ours:
                tables(image, *small, f"{action}:{at}")
            else:
                qemu_img("snapshot", "-d" if action == "delete" else "-a", name, image)
        clean(image)
        assert content(image) == now
        names = [line.split()[1] for line in snapshots(qemu_img, image).splitlines()[2:]]
        assert names == [name for name, _ in kept]
    for at, (name, then) in enumerate(kept):
        assert content(image, "-l", name) == then
        raw = tmp_path / "shown"
        tables(image, "readonly", f"load:{at}", f"dump:{raw}")
        assert hashlib.sha256(raw.read_bytes()).hexdigest() == then
    tables(image, *(["delete:0"] * len(kept)))
    clean(image)


def test_snapshot_list(tables, qemu_img, tmp_path):
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", image, "1M")
    tables(image, "snapshot:first", "snapshot:ä b")
    qemu_img("snapshot", "-c", "third", image)
    lines = tables(image, "list").splitlines()
    assert lines[0] == f"1 first vm=0 disk={MIB} extra=24 icount=-1"
    assert lines[1] == f"2 ä b vm=0 disk={MIB} extra=24 icount=-1"
    assert lines[2].startswith("3 third")
    assert "first" in snapshots(qemu_img, image)
    assert "Can't find the snapshot" in tables(image, "delete:3", ok=False)
    assert "Can't find the snapshot" in tables(image, "apply:7", ok=False)
    assert "Can't find snapshot" in tables(image, "readonly", "load:7", ok=False)


def test_snapshot_with_compressed_clusters(tables, clean, qemu_img, qemu_io, content, tmp_path):
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(b"".join(bytes([i % 7]) * 4096 for i in range(1024)))
    qemu_img("convert", "-O", "qcow2", "-c", raw, image)
    before = content(image)
    tables(image, "snapshot:one", "snapshot:two")
    clean(image)
    qemu_io(image, "write -P 9 0 2M")
    after = content(image)
    tables(image, "delete:0")
    clean(image)
    assert content(image) == after
    tables(image, "apply:0", "delete:0")
    clean(image)
    assert content(image) == before


def test_refcounts_overflow(tables, clean, qemu_img, qemu_io, content, tmp_path):
    """A snapshot more than the width counts is refused, and leaves nothing behind."""
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", "-o", "refcount_bits=2,cluster_size=4k", image, "8M")
    qemu_io(image, "write -P 3 0 4M", "write -P 4 6M 64k")
    before = content(image)
    tables(image, "snapshot:one", "snapshot:two")
    qemu_io(image, "write -P 5 6M 64k")
    assert "snapshot:three -34" in tables(image, "snapshot:three", ok=False)
    clean(image)
    assert "apply:0 -34" in tables(image, "apply:0", ok=False)
    clean(image)
    assert header(image)[72:80] == bytes(8)  # nor does anybody have to repair it
    tables(image, "delete:0", "apply:0")
    clean(image)
    assert content(image) == before


# -------------------------------------------------------------------- amending


@pytest.mark.parametrize("cluster", ["512", "4k", "64k"])
def test_refcount_widths(tables, clean, qemu_img, qemu_io, content, tmp_path, cluster):
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", "-o", f"cluster_size={cluster}", image, "8M")
    write_some(qemu_io, image, 8 * MIB, 5)
    before = content(image)
    for order in (0, 6, 5, 1, 4, 3, 2):
        tables(image, f"refcounts:{order}")
        clean(image)
        assert f"refcount bits: {1 << order}\n" in qemu_img("info", image)
        assert content(image) == before
    tables(image, "refcounts:6", "refcounts:0", "refcounts:4", "snapshot:one")
    clean(image)
    qemu_io(image, "write -P 9 0 1M")
    say = "Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x"
    assert say in tables(image, "refcounts:0", ok=False)
    assert "refcounts:3c -125" in tables(image, "refcounts:3c", ok=False)
    clean(image)
    tables(image, "refcounts:1", "delete:0", "refcounts:0")
    clean(image)


@pytest.mark.parametrize("backed", [True, False])
def test_versions(tables, clean, qemu_img, qemu_io, content, tmp_path, backed):
    backing, image = tmp_path / "backing", tmp_path / "image"
    qemu_img("create", "-f", "raw", backing, "8M")
    qemu_io(backing, "write -P 5 0 8M", options=("-f", "raw"))
    options = ("-b", backing, "-F", "raw") if backed else ()
    world = (f"backing={backing}",) if backed else ()
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=4k", *options, image, "8M")
    write_some(qemu_io, image, 8 * MIB, 7, 30)
    tables(image, *world, "snapshot:one")
    qemu_io(image, "write -z 1M 3M", "write -P 8 6M 64k", "write -z 6M 32k")
    now = content(image)
    then = content(image, "-l", "one")
    tables(image, *world, "version:2")
    assert "compat: 0.10" in qemu_img("info", image)
    clean(image)
    assert content(image) == now
    assert content(image, "-l", "one") == then
    tables(image, *world, "version:3", "snapshot:two", f"resize:{9 * MIB}")
    assert "compat: 1.1" in qemu_img("info", image)
    clean(image)
    say = "Internal snapshots prevent downgrade of image"
    assert say in tables(image, *world, "version:2", ok=False)


@pytest.mark.parametrize(
    ("options", "say"),
    [
        ("refcount_bits=8", "compat=0.10 requires refcount_bits=16"),
        (
            "extended_l2=on",
            "Cannot downgrade an image with incompatible features 0x10 set",
        ),
    ],
)
def test_downgrade_refused(tables, clean, qemu_img, tmp_path, options, say):
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", "-o", options, image, "1M")
    assert say in tables(image, "version:2", ok=False)
    clean(image)


def test_downgrade_with_compression(tables, clean, qemu_img, content, tmp_path):
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(bytes(range(256)) * 4096)
    qemu_img("create", "-f", "qcow2", "-o", "compression_type=zstd", image, "1M")
    tables(image, "version:2")
    clean(image)
    qemu_img("convert", "-O", "qcow2", "-c", "-o", "compression_type=zstd", raw, image)
    say = "Cannot downgrade an image with zstd compression type and existing compressed clusters"
    assert say in tables(image, "version:2", ok=False)
    clean(image)
    assert content(image) == hashlib.sha256(raw.read_bytes()).hexdigest()


def test_dirty_bit(tables, clean, qemu_img, tmp_path):
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", "-o", "lazy_refcounts=on", image, "1M")
    with open(image, "r+b") as file:
        file.seek(72)
        file.write(struct.pack(">Q", 1))
    tables(image, "clean")
    assert header(image)[72:80] == bytes(8)
    clean(image)


# --------------------------------------------------------------------- bitmaps


@pytest.mark.parametrize("cluster", ["512", "64k"])
def test_bitmap_data(tables, clean, qemu_img, tmp_path, cluster):
    image, data = tmp_path / "image", tmp_path / "data"
    qemu_img("create", "-f", "qcow2", "-o", f"cluster_size={cluster}", image, "1M")
    chance = random.Random(3)
    parts = [bytes(65536), b"\xff" * 65536, chance.randbytes(65536), bytes(131072), b"\xff" * 77]
    data.write_bytes(b"".join(parts))
    told = tables(image, f"bitmap:{data}")
    assert f"entries {-(-(5 * 65536 + 77) // (512 if cluster == '512' else 65536))}\n" in told
    clean(image)
    for bad in ("0:1:9", "512:2:65536", "65537:1:9", f"{1 << 60}:1:9", "65536:4000000000:9"):
        assert "badbitmap" in tables(image, f"badbitmap:{bad}", ok=False)
    clean(image)


# ------------------------------------------------------------------ power cuts

CUTS = {
    "snapshot": ["snapshot:new"],
    "delete": ["delete:0"],
    "apply": ["apply:0"],
    "grow": [f"resize:{40 * MIB}"],
    "preallocate": [f"resize:{12 * MIB}:1"],
    "shrink": [f"resize:{MIB}"],
    "refcounts": ["refcounts:5"],
    "downgrade": ["version:2"],
}


def mended(qemu_img, image, version):
    """QEMU finds leaks at most, or, where an image says that it is dirty, mends it."""
    done = qemu_img("check", image, ok=False)
    if done.returncode in (0, 3):
        return
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert lines, done.stderr
    assert all("OFLAG_COPIED" in line for line in lines), done.stderr
    assert version == 2 or header(image)[79] & 1, done.stderr
    assert qemu_img("check", "-r", "all", image, ok=False).returncode in (0, 3)


def state(qemu_img, content, image):
    names = [line.split()[1] for line in snapshots(qemu_img, image).splitlines()[2:]]
    shown = {name: content(image, "-l", name) for name in names}
    info = qemu_img("info", image)
    keep = ("virtual size", "compat:", "refcount bits")
    return (
        content(image),
        shown,
        [line for line in info.splitlines() if line.strip().startswith(keep)],
    )


@pytest.mark.parametrize("cluster", ["512", "4k"])
@pytest.mark.parametrize("version", [3, 2])
@pytest.mark.parametrize("name", sorted(CUTS))
def test_power_cuts(tables, qemu_img, qemu_io, content, tmp_path, name, version, cluster):
    """Whatever a cut leaves of what was not flushed, the image is as before or as after."""
    if version == 2 and name in ("refcounts", "downgrade"):
        return
    image, folder = tmp_path / "image", tmp_path / "cuts"
    folder.mkdir()
    compat = "1.1" if version == 3 else "0.10"
    qemu_img("create", "-f", "qcow2", "-o", f"cluster_size={cluster},compat={compat}", image, "8M")
    write_some(qemu_io, image, 8 * MIB, 1)
    if version == 3 or name in ("snapshot", "delete", "apply"):
        tables(image, "snapshot:old")
        write_some(qemu_io, image, 8 * MIB, 2, 6)
    before = state(qemu_img, content, image)
    tables(image, f"cuts=25:{len(name)}:{folder}", *CUTS[name])
    after = state(qemu_img, content, image)
    assert before != after
    seen = set()
    for cut in sorted(folder.iterdir()):
        mended(qemu_img, cut, version)
        found = state(qemu_img, content, cut)
        if name == "shrink" and found[2] == before[2]:
            assert found[1] == before[1]  # clusters beyond the end may have gone
        else:
            assert found in (before, after)
        seen.add(found[2][0])
    assert seen


@pytest.mark.parametrize("name", sorted(CUTS))
def test_failures(tables, qemu_img, qemu_io, content, tmp_path, name):
    """Writes that fail from some point on leave the image as before or as after."""
    first, image = tmp_path / "first", tmp_path / "image"
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=4k", first, "8M")
    write_some(qemu_io, first, 8 * MIB, 1)
    tables(first, "snapshot:old")
    write_some(qemu_io, first, 8 * MIB, 2, 6)
    before = state(qemu_img, content, first)
    shutil.copy(first, image)
    tables(image, *CUTS[name])
    after = state(qemu_img, content, image)
    for at in (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30):
        shutil.copy(first, image)
        tables(image, f"fail={at}", *CUTS[name], ok=None)
        mended(qemu_img, image, 3)
        found = state(qemu_img, content, image)
        assert found in (before, after) or name == "shrink"
