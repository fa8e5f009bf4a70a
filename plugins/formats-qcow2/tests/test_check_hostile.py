# SPDX-License-Identifier: Apache-2.0
"""Checks where qemu-img's gives up or gets lost: what is mended, and at what cost."""

import importlib.util
import os
import struct
import time
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
MEBIBYTE = 1 << 20
READABLE = "read -P 17 0 1M"


@pytest.fixture
def image(tmp_path, qemu_img, qemu_io):
    """``image(size, options)`` with a mebibyte of 17 at its beginning."""

    def make(size="64M", options=""):
        path = tmp_path / "a.qcow2"
        words = ["-o", options] if options else []
        qemu_img("create", "-q", "-f", "qcow2", *words, path, size)
        qemu_io(path, "write -P 17 0 1M")
        return damage.Image(path)

    return make


@pytest.fixture
def check(native):
    """``check(image, fix)`` with little memory; seconds are told."""
    program = native.program("plain", "check_image")

    def run(image, fix=None):
        return checked.by_us(program, image.path, fix, memory=512 * MEBIBYTE)

    return run


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda i: i.flip(i.reftable, 0x200), id="block not aligned"),
        pytest.param(lambda i: i.flip(i.reftable, 1), id="reserved bits"),
        pytest.param(lambda i: i.put(i.reftable, 0), id="no block"),
        pytest.param(lambda i: i.put(i.reftable, 1 << 62), id="block far outside"),
        pytest.param(lambda i: i.put(i.reftable, 2**64 - 512), id="block beyond all files"),
        pytest.param(lambda i: i.put(i.reftable, i.l1), id="block on the L1 table"),
        pytest.param(lambda i: i.put(i.reftable, i.l2()), id="block on an L2 table"),
        pytest.param(lambda i: i.put(i.reftable, 0x50000), id="block on data"),
        pytest.param(lambda i: i.put(48, i.l1), id="table on the L1 table"),
        pytest.param(lambda i: i.put(48, i.l2()), id="table on an L2 table"),
        pytest.param(lambda i: i.put(48, 0x50000), id="table on data"),
        pytest.param(lambda i: i.put(48, 1 << 55), id="table far outside"),
        pytest.param(lambda i: i.put32(56, 0), id="table without clusters"),
        pytest.param(lambda i: i.put32(56, 128), id="table of 8 MiB"),
        pytest.param(lambda i: i.write(i.refblock(), os.urandom(65536)), id="block of noise"),
        pytest.param(lambda i: i.write(i.reftable, os.urandom(65536)), id="table of noise"),
    ],
)
def test_any_refcounts_are_mended_and_data_stay(spoil, image, check, qemu_img, qemu_io):
    found = image()
    spoil(found)
    assert not check(found).is_clean
    assert check(found, "all").is_clean
    assert check(found).is_clean
    qemu_img("check", found.path)
    assert "failed" not in qemu_io(found.path, READABLE, "write -P 3 2M 1M", READABLE)
    qemu_img("check", found.path)


def test_new_refcounts_are_not_put_where_lost_tables_were(image, check, qemu_img):
    found = image()
    os.truncate(found.path, 0x20000)  # L1 is behind the end, and all data
    assert check(found, "all").is_clean
    qemu_img("check", found.path)


def test_an_l2_table_that_lies_askew_is_not_written_to(image, check, qemu_io):
    found = image()
    found.flip(found.l1, 0x200)
    data = found.read(0x50000, 0x100000)
    assert not check(found, "all").is_clean
    assert found.read(0x50000, 0x100000) == data


def test_a_sparse_file_of_terabytes_takes_little_memory_and_time(image, check):
    found = image()
    os.truncate(found.path, 15 << 40)
    entries = [damage.COPIED | (index << 40) for index in range(1, 15)]
    found.write(found.l2() + 8 * 100, struct.pack(f">{len(entries)}Q", *entries))
    begin = time.monotonic()
    ours = check(found)
    assert time.monotonic() - begin < 20
    assert ours.numbers["corruptions"] == 2 * len(entries)
    assert sum("refcount=0 reference=1" in line for line in ours.lines) == len(entries)
    assert check(found, "all").is_clean


def test_one_l2_table_for_a_whole_l1_table_is_read_once(image, check):
    found = image("512G")
    entries = found.get32(36)
    found.write(found.l1, struct.pack(">Q", found.get(found.l1)) * entries)
    found.put32(36, 1 << 13)
    found.write(found.l1, struct.pack(">Q", found.get(found.l1)) * (1 << 13))
    begin = time.monotonic()
    ours = check(found)
    assert time.monotonic() - begin < 20
    assert f"ERROR cluster 4 refcount=1 reference={1 << 13}" in ours.lines
    assert ours.numbers["allocated-clusters"] == 16 << 13


def test_snapshots_that_share_an_l1_table_are_counted(image, check, qemu_img):
    found = image()
    for name in "abc":
        qemu_img("snapshot", "-c", name, found.path)
    first = found.get(found.snapshots)
    found.put(found.snapshots + 72, first)
    ours = check(found)
    assert f"ERROR cluster {first >> 16} refcount=1 reference=2" in ours.lines


def test_bitmap_tables_that_claim_a_gibibyte_cost_nothing(image, check, qemu_img):
    found = image()
    qemu_img("bitmap", "--add", found.path, "one")
    header = found.read(0, 4096)
    at = header.index(struct.pack(">II", 0x23852875, 24))
    directory = struct.unpack(">Q", header[at + 24 : at + 32])[0]
    found.put32(directory + 8, 0x8000000)
    begin = time.monotonic()
    ours = check(found)
    assert time.monotonic() - begin < 10
    assert any("size 0x40000000" in line for line in ours.lines)
    found.put32(directory + 8, 0xFFFFFFFF)
    assert check(found).numbers is None


def test_a_block_far_away_does_not_make_the_file_long(image, check):
    found = image()
    found.put(found.reftable + 8, 1 << 42)
    assert check(found, "all").is_clean
    assert found.path.stat().st_size < 1 << 31


def test_the_dirty_and_corrupt_bits_go_with_the_last_error(image, check):
    found = image()
    found.put(72, 3)
    found.refcount(5, 0)
    found.flip(found.l2() + 8, 2)  # reserved: stays
    assert not check(found, "all").is_clean
    assert found.get(72) == 3
    found.flip(found.l2() + 8, 2)
    assert check(found, "all").is_clean
    assert found.get(72) == 0
