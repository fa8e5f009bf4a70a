# SPDX-License-Identifier: Apache-2.0
"""The native check of damaged images: numbers and sentences are qemu-img's."""

import importlib.util
import os
import random
import shutil
import struct
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


damage = load("damage")
checked = load("checked")
COPIED = damage.COPIED
COMPRESSED = damage.COMPRESSED

#: name: creation options, size, what is done to the image
IMAGES = {
    "plain": ("", "64M", ["write -P 17 0 1M"]),
    "large": ("", "4G", ["write -P 17 0 1M"]),
    "zeroes": ("cluster_size=512", "2M", ["write 0 300k", "write 500k 10k", "write -z 1M 20k"]),
    "snapshots": ("cluster_size=4k", "16M", [
        "write 0 300k", "write 3M 30k", "snapshot a", "write 100k 50k", "snapshot bee",
        "write 4M 30k",
    ]),
    "compressed": ("cluster_size=4k", "16M", [
        "write -P 1 0 100k", "write -c -P 2 200k 64k", "write -c -P 3 400k 64k", "snapshot a",
        "write -c 1M 16k", "write 200k 16k",
    ]),
    "extended": ("cluster_size=16k,extended_l2=on", "64M", [
        "write 0 300k", "write 1M 1k", "write -z 2M 2k", "write 30M 99k", "snapshot a",
        "write 0 3k",
    ]),
    "bitmaps": ("cluster_size=4k", "64M", [
        "write 0 300k", "bitmap one", "bitmap two", "write 3M 100k",
    ]),
    "old": ("compat=0.10,cluster_size=1k", "4M", ["write 0 300k", "snapshot q", "write 10k 30k"]),
    "wide": ("cluster_size=2M", "1G", ["write 0 3M", "write 100M 64k", "snapshot q"]),
    "zstd": ("compression_type=zstd", "64M", ["write -P 3 -c 0 512k", "write 3M 100k"]),
    **{
        f"bits{bits}": (f"cluster_size=1k,refcount_bits={bits}", "4M", [
            "write 0 300k", "write 3M 100k", *(["snapshot a", "write 0 30k"] if bits > 1 else []),
        ])
        for bits in (1, 2, 4, 8, 32, 64)
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def image(tmp_path_factory, qemu_img, qemu_io):
    """``image(name, path)``: one of IMAGES, as QEMU makes it, to be damaged."""
    folder = tmp_path_factory.mktemp("images")

    def make(name, path):
        options, size, steps = IMAGES[name]
        words = ["-o", options] if options else []
        qemu_img("create", "-q", "-f", "qcow2", *words, path, size)
        for step in steps:
            kind, _, rest = step.partition(" ")
            if kind == "snapshot":
                qemu_img("snapshot", "-c", rest, path)
            elif kind == "bitmap":
                qemu_img("bitmap", "--add", path, rest)
            else:
                qemu_io(path, step)

    def copy(name, path):
        kept = folder / f"{name}.qcow2"
        if not kept.exists():
            make(name, kept)
        shutil.copy(kept, path)
        return damage.Image(path)

    return copy


def again(image, entries):
    """The first cluster, mapped by more guest clusters."""
    for index in range(1, entries):
        image.put(image.l2() + 8 * index, image.get(image.l2()))


def same_l2(image):
    for index in range(1, 6):
        image.put(image.l1 + 8 * index, image.get(image.l1))


def flags(image, bits):
    image.put(72, image.get(72) | bits)


def cut(image, end):
    os.truncate(image.path, end)


def l2_put(image, index, value):
    image.put(image.l2() + 8 * index, value)


def l2_or(image, index, bits):
    l2_put(image, index, image.get(image.l2() + 8 * index) | bits)


def wide_or(image, bits, bitmap):
    """Change the first of the extended entries."""
    image.put(image.l2(), image.get(image.l2()) | bits)
    image.put(image.l2() + 8, image.get(image.l2() + 8) & ~0xFFFFFFFF | bitmap)


def snapshot_put(image, at, kind, value):
    image.write(image.snapshots + at, struct.pack(kind, value))


CASES = {
    "nothing": ("plain", lambda i: None),
    "l2 entry with reserved bits": ("plain", lambda i: l2_or(i, 0, 2)),
    "l2 entry with only reserved bits": ("plain", lambda i: l2_put(i, 500, 1 << 61)),
    "data not aligned": ("plain", lambda i: l2_or(i, 1, 0x200)),
    "preallocated not aligned": ("plain", lambda i: l2_or(i, 1, 0x201)),
    "data behind the end": ("plain", lambda i: l2_put(i, 1, COPIED | 0x10000000)),
    "data right behind the end": ("plain", lambda i: l2_put(i, 1, COPIED | 0x150000)),
    "data twice": ("plain", lambda i: again(i, 2)),
    "data often": ("bits4", lambda i: again(i, 40)),
    "data more often than a bit counts": ("bits1", lambda i: again(i, 9)),
    "compressed with copied": ("plain", lambda i: l2_put(i, 0, COPIED | COMPRESSED | 0x50200)),
    "compressed behind the end": ("plain", lambda i: l2_put(i, 0, COMPRESSED | 0x5000000)),
    "compressed across the end": ("plain", lambda i: l2_put(i, 0, COMPRESSED | 1 << 54 | 0x14FE00)),
    "copied without a cluster": ("plain", lambda i: l2_put(i, 500, COPIED)),
    "zero with copied": ("plain", lambda i: l2_put(i, 500, COPIED | 1)),
    "zero bit in version 2": ("old", lambda i: l2_or(i, 0, 1)),
    "l1 entry with reserved bits": ("plain", lambda i: i.flip(i.l1, 1)),
    "l2 table behind the end": ("plain", lambda i: i.put(i.l1, COPIED | 0x10000000)),
    "l2 table often": ("large", same_l2),
    "more l1 entries": ("plain", lambda i: i.put32(36, 9)),
    "no refcount block": ("plain", lambda i: i.put(i.reftable, 0)),
    "refcount block outside": ("plain", lambda i: i.put(i.reftable + 8, 0x1000000)),
    "refcount block twice": ("plain", lambda i: i.put(i.reftable + 8, i.refblock())),
    "refcount block on data": ("plain", lambda i: i.put(i.reftable + 8, 0x50000)),
    "refcount table outside": ("plain", lambda i: i.put(48, 1 << 40)),
    "refcount too low": ("plain", lambda i: i.refcount(5, 0)),
    "refcount too high": ("plain", lambda i: i.refcount(5, 2)),
    "leak behind the end": ("plain", lambda i: i.refcount(5000, 2)),
    "dirty": ("plain", lambda i: (flags(i, 1), i.refcount(5, 0))),
    "dirty and corrupt for nothing": ("plain", lambda i: flags(i, 3)),
    "corrupt with a leak": ("plain", lambda i: (flags(i, 2), i.refcount(5, 2))),
    "file cut in a cluster": ("plain", lambda i: cut(i, 0x80200)),
    "file cut": ("plain", lambda i: cut(i, 0x80000)),
    "subclusters both ways": ("extended", lambda i: wide_or(i, 0, 0x100000001)),
    "subclusters of data not aligned": ("extended", lambda i: wide_or(i, 0x200, 1)),
    "subclusters of nothing not aligned": ("extended", lambda i: wide_or(i, 0x200, 0)),
    "subclusters without a cluster": ("extended", lambda i: i.put(i.l2() + 16 * 700 + 8, 5)),
    "compressed with subclusters": ("extended", lambda i: i.put(i.l2(), COMPRESSED | 0x50000)),
    "snapshots' l2 entry": ("snapshots", lambda i: l2_or(i, 60, 2)),
    "snapshots' preallocated": ("snapshots", lambda i: l2_or(i, 60, 0x201)),
    "snapshot's l1 not aligned": ("snapshots", lambda i: i.flip(i.snapshots, 0x200)),
    "snapshot's l1 too large": ("snapshots", lambda i: snapshot_put(i, 8, ">I", 1 << 24)),
    "snapshot's l1 behind the end": ("snapshots", lambda i: i.put(i.snapshots, 1 << 40)),
    "snapshot's extra too short": ("snapshots", lambda i: snapshot_put(i, 108, ">I", 8)),
    "snapshot without extra": ("snapshots", lambda i: snapshot_put(i, 108, ">I", 0)),
    "snapshot with much extra": ("snapshots", lambda i: snapshot_put(i, 36, ">I", 2000)),
    "snapshot with extra of 2 GiB": ("snapshots", lambda i: snapshot_put(i, 36, ">I", 1 << 31)),
    "snapshot with most extra": ("snapshots", lambda i: snapshot_put(i, 36, ">I", 2**32 - 1)),
    "more snapshots than there are": ("snapshots", lambda i: i.put32(60, 100)),
    "snapshot table not aligned": ("snapshots", lambda i: i.put(64, i.snapshots + 512)),
    "bitmap directory gone": ("bitmaps", lambda i: i.put(88, 0)),
}


@pytest.mark.parametrize("fix", [None, "leaks", "all"])
@pytest.mark.parametrize("case", CASES)
def test_damage_is_told_as_qemu_tells_it(case, fix, image, native, tmp_path):
    name, spoil = CASES[case]
    spoil(image(name, tmp_path / "a.qcow2"))
    theirs, ours = checked.both(native.program("plain", "check_image"), tmp_path / "a.qcow2", fix)
    assert ours.lines == theirs.lines
    assert ours.numbers == theirs.numbers


@pytest.mark.parametrize("name", IMAGES)
def test_sound_images_are_found_sound(name, image, native, tmp_path):
    image(name, tmp_path / "a.qcow2")
    theirs, ours = checked.both(native.program("plain", "check_image"), tmp_path / "a.qcow2", None)
    assert ours.is_clean
    assert not ours.lines
    assert ours.numbers == theirs.numbers


#: Sentences of damage where the two part: QEMU reads the header as an L2 table
#: when an L1 entry has flags but no offset, writes into L2 tables that lie
#: askew, and gives up where structures overlap.
PARTING = ("14649fb", "could not resize", "L1 entry corrupted", "Could not resize",
           "Check failed", "overlap check", "ERROR writing refblock")  # fmt: skip


def same_but_for_order(ours, theirs):
    return ours.numbers == theirs.numbers and sorted(ours.lines) == sorted(theirs.lines)


@pytest.mark.parametrize("seed", range(14, 34))
def test_random_damage(seed, image, native, tmp_path):
    chance = random.Random(seed)
    path = tmp_path / "a.qcow2"
    damage.at_random(image(chance.choice(list(IMAGES)), path), chance)
    program = native.program("plain", "check_image")
    for fix in (None, "leaks", "all"):
        theirs, ours = checked.both(program, path, fix)
        parted = theirs.numbers is None and fix == "all"
        if parted or any(word in line for word in PARTING for line in theirs.lines + ours.lines):
            continue
        assert same_but_for_order(ours, theirs), fix
    if ours.is_clean:
        assert checked.by_qemu(path.with_suffix(".ours"), None).is_clean


@pytest.mark.asan
@pytest.mark.parametrize("seed", range(30))
def test_random_damage_under_the_sanitizers(seed, image, native, tmp_path):
    chance = random.Random(1000 + seed)
    path = tmp_path / "a.qcow2"
    damage.at_random(image(chance.choice(list(IMAGES)), path), chance)
    program = native.program("address", "check_image")
    checked.once(program, path, None, None)
    checked.once(program, path, "all", None)
    checked.once(program, path, "all", None)
