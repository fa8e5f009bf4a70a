# SPDX-License-Identifier: Apache-2.0
"""Zeroes that begin or end inside a cluster: which clusters QEMU makes zero, and we too."""

import json
import random

import pytest

from blockyard import Yard

pytestmark = pytest.mark.anyio
LENGTH = 4 << 20


@pytest.fixture
def anyio_backend():
    """One event loop is enough here."""
    return "asyncio"


def make(folder, qemu_img, qemu_io, shape, backed):
    """An image with some data, and a shorter backing file with some as well."""
    folder.mkdir()
    path, base = folder / "a.qcow2", folder / "base.qcow2"
    if backed:
        qemu_img("create", "-f", "qcow2", base, "3M")
        qemu_io(base, "write -q -P 3 100k 200k", "write -q -z 1M 512k", "write -q -P 4 2M 3k")
        qemu_img("create", "-f", "qcow2", "-o", shape, "-b", base, "-F", "qcow2", path, str(LENGTH))
    else:
        qemu_img("create", "-f", "qcow2", "-o", shape, path, str(LENGTH))
    qemu_io(path, "write -q -P 7 600k 70k", "write -q -z 1900k 10k")
    return path


def extents(path, qemu_img):
    """What the image's own layer holds, offsets in the file left out."""
    told = json.loads(qemu_img("map", "--output=json", path))
    return [{k: v for k, v in each.items() if k != "offset"} for each in told]


@pytest.mark.parametrize("backed", [False, True], ids=["alone", "backed"])
@pytest.mark.parametrize(
    "shape", ["cluster_size=64k", "cluster_size=4k", "cluster_size=64k,extended_l2=on"]
)
async def test_edges_are_qemus(tmp_path, qemu_img, qemu_io, shape, backed):
    chance = random.Random(f"{shape} {backed}")
    ours = make(tmp_path / "ours", qemu_img, qemu_io, shape, backed)
    theirs = make(tmp_path / "theirs", qemu_img, qemu_io, shape, backed)
    ranges = []
    for _ in range(60):
        offset = chance.randrange(LENGTH)
        length = chance.choice([1, 512, 3000, 5000, 70000, 300000])
        ranges.append((offset, min(length, LENGTH - offset), chance.random() < 0.5))
    flags = {False: "", True: "-u "}
    qemu_io(theirs, *(f"write -q -z {flags[u]}{offset} {length}" for offset, length, u in ranges))
    async with Yard() as yard:
        options = {
            "driver": "qcow2", "discard": "unmap", "file": {"driver": "file", "filename": str(ours)}
        }  # fmt: skip
        async with await yard.open(options) as image:
            for offset, length, unmap in ranges:
                await image.write_zeroes(offset, length, may_unmap=unmap)
    qemu_img("check", ours)
    qemu_img("compare", ours, theirs)
    assert extents(ours, qemu_img) == extents(theirs, qemu_img)


@pytest.mark.parametrize("shape", ["cluster_size=16k", "cluster_size=16k,extended_l2=on"])
async def test_what_a_compressed_last_cluster_has_behind_the_end_reads_as_zeroes_when_it_grows(
    tmp_path, qemu_img, qemu_io, shape
):
    path, end = tmp_path / "a.qcow2", 237 * 512
    qemu_img("create", "-f", "qcow2", "-o", shape, path, "128k")
    qemu_io(path, "write -q -c -P 9 0 128k")
    async with Yard() as yard:
        options = {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}
        async with await yard.open(options) as image:
            await image.resize(end)
            await image.resize(1 << 20)
            assert await image.read(0, end) == b"\x09" * end
            assert await image.read(end, (1 << 20) - end) == bytes((1 << 20) - end)
    qemu_img("check", path)
