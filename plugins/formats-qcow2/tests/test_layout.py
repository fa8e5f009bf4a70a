# SPDX-License-Identifier: Apache-2.0
"""Where in the file clusters are put: users see it as the size of a file and as how it is read."""

import json

import anyio
import pytest

MIB = 1 << 20


@pytest.mark.parametrize("options", ["cluster_size=64k", "extended_l2=on"])
def test_concurrent_writes_lie_in_the_order_in_which_they_began(place, qemu_img, tmp_path, options):
    """One L2 table maps them all: who waits for a table holds up none that needs another."""
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, "96M")

    async def write(image):
        async with anyio.create_task_group() as group:
            for at in range(0, 96 * MIB, MIB):
                group.start_soon(image.write, at, bytes([at >> 20]) * MIB)

    with place.open(driver="qcow2", file={"driver": "file", "filename": str(path)}) as image:
        place.ask(write, image)
    found = json.loads(qemu_img("map", "--output=json", path))
    offsets = [extent["offset"] for extent in found]
    assert offsets == sorted(offsets)
    assert sum(extent["length"] for extent in found if extent["data"]) == 96 * MIB
    qemu_img("check", path)


def test_what_was_freed_is_used_before_the_file_grows(place, qemu_img, qemu_io, tmp_path):
    """Discards, then writes elsewhere and there: as QEMU does, with nothing flushed between."""
    ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    ends = [(0, 10 * MIB), (90 * MIB, 10 * MIB)]
    for path in (ours, theirs):
        options = "cluster_size=1M,preallocation=metadata"
        qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, "100M")
    file = {"driver": "file", "filename": str(ours)}
    with place.open(driver="qcow2", file=file, discard="unmap") as image:
        for at, length in ends:
            place.ask(image.discard, at, length)
        for at, length in reversed(ends):
            place.ask(image.write, at, b"\x0b" * length)
    words = [f"discard {at} {length}" for at, length in ends]
    qemu_io(theirs, *words, *(f"write -P 11 {at} {length}" for at, length in reversed(ends)))
    assert qemu_img("map", "--output=json", ours) == qemu_img("map", "--output=json", theirs)
    assert ours.stat().st_size == theirs.stat().st_size
    qemu_img("check", ours)


def test_blocks_of_refcounts_lie_behind_what_is_written_in_one_piece(
    place, qemu_img, qemu_io, tmp_path
):
    """Small clusters, wide refcounts: a block for every 2 MiB of the file."""
    ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    options = "cluster_size=4k,refcount_bits=64"
    for path in (ours, theirs):
        qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, "8M")
    with place.open(driver="qcow2", file={"driver": "file", "filename": str(ours)}) as image:
        place.ask(image.write, 0, b"\x0b" * 8 * MIB)
    qemu_io(theirs, "write -P 11 0 8M")
    assert qemu_img("map", "--output=json", ours) == qemu_img("map", "--output=json", theirs)
    assert ours.stat().st_size == theirs.stat().st_size
    qemu_img("check", ours)
