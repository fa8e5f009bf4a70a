# SPDX-License-Identifier: Apache-2.0
"""blklogwrites: the log says what was done to the disk, as QEMU's says it."""

from __future__ import annotations

import errno
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_model import DISCARD, FLUSH, FUA, Entry, parse, replay
from log_steps import MIB, Step, carry_out, file, logged, qemu_io

from blockyard.errors import BlockyardError, ImageIOError
from blockyard.permission import Perm
from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite


def subject(**options: Any) -> Subject:
    def make(folder: Path, size: int) -> dict[str, Any]:
        return logged(folder, size, **options)

    refused = {
        "driver": "blklogwrites",
        "file": {"driver": "null-co"},
        "log": {"driver": "null-co"},
    }
    return Subject(make=make, refused=({**refused, "log-sector-size": 1000},))


class TestConformance(ConformanceSuite):
    subject = subject()


class TestConformanceWithLargeSectors(ConformanceSuite):
    subject = subject(**{"log-sector-size": 4096, "log-super-update-interval": 1})


class TestConformanceOfAppending(ConformanceSuite):
    subject = subject(**{"log-append": True})


# ------------------------------------------------------- beside QEMU's


PLACES = st.tuples(st.integers(0, 20_000), st.integers(1, 9000), st.integers(1, 255))
STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "write -z", "write -zu", "discard", "flush"]), PLACES).map(
        lambda made: (made[0], *made[1])
    ),
    max_size=12,
)


@pytest.mark.parametrize("size", [512, 4096])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_the_log_is_qemus_byte_for_byte(
    in_yard: Any, qemu: Any, size: int, steps: list[Step]
) -> None:
    with TemporaryDirectory() as ours, TemporaryDirectory() as theirs:

        async def scenario(yard: Any) -> None:
            disk = await yard.open(logged(Path(ours), **{"log-sector-size": size}))
            for step in steps:
                await carry_out(disk, step)

        in_yard(scenario)
        logged(Path(theirs))
        assert not qemu_io(qemu.program, Path(theirs), steps, **{"log-sector-size": size})
        log, disk = ((Path(ours) / name).read_bytes() for name in ("log", "disk"))
        assert log == (Path(theirs) / "log").read_bytes()
        if log:
            assert replay(log, bytes(MIB)) == disk
        else:
            assert disk == bytes(MIB)


def test_each_goes_on_with_the_others_log(tmp_path: Path, in_yard: Any, qemu: Any) -> None:
    first: list[Step] = [("write", 0, 1024, 1), ("discard", 4096, 4096, 0)]
    second: list[Step] = [("write", 512, 512, 2), ("write -z", 0, 512, 0)]

    async def scenario(yard: Any) -> None:
        disk = await yard.open({**options, "log-append": True})
        for step in second:
            await carry_out(disk, step)

    options = logged(tmp_path)
    qemu_io(qemu.program, tmp_path, first)
    in_yard(scenario)
    assert not qemu_io(qemu.program, tmp_path, first, **{"log-append": "on"})
    log = (tmp_path / "log").read_bytes()
    assert [entry[:3] for entry in parse(log)[1]] == [
        *((0, 2, 0), (8, 8, DISCARD), (0, 0, FLUSH)),
        *((1, 1, 0), (0, 8, 0), (0, 0, FLUSH)),
        *((0, 2, 0), (8, 8, DISCARD), (0, 0, FLUSH)),
    ]
    assert replay(log, bytes(MIB)) == (tmp_path / "disk").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        *({"log-sector-size": size} for size in (0, 1, 16, 31, 33, 255, 1000, 1 << 24)),
        *({"log-sector-size": size} for size in (32, 256, 8192)),
        {"log-super-update-interval": 0},
        {"log-super-update-interval": 0, "log-sector-size": 3},
        {"log-append": True, "log-sector-size": 512},
        {"log-append": True, "log-sector-size": 0},
        {"log-append": False, "log-sector-size": 512},
        {"log-append": True},
    ],
    ids=str,
)
def test_what_is_refused(tmp_path: Path, in_yard: Any, qemu: Any, options: dict[str, Any]) -> None:
    async def scenario(yard: Any) -> str:
        try:
            await yard.open(logged(tmp_path, **options))
        except BlockyardError as error:
            return str(error)
        return ""

    said = in_yard(scenario)
    spelled = {
        name: {True: "on", False: "off"}[value] if name == "log-append" else value
        for name, value in options.items()
    }
    assert said == qemu_io(qemu.program, tmp_path, [("flush", 0, 0, 0)], **spelled)
    assert (tmp_path / "log").read_bytes() == b""


# ------------------------------------------------------------ by itself


def test_durable_writes_are_marked(tmp_path: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        disk = await yard.open(logged(tmp_path))
        await disk.write(512, b"a" * 512, fua=True)
        await disk.write_zeroes(0, 512, fua=True)

    in_yard(scenario)
    assert parse((tmp_path / "log").read_bytes())[1] == [
        Entry(1, 1, FUA, b"a" * 512),
        Entry(0, 1, FUA, bytes(512)),
        Entry(0, 0, FLUSH, b""),
    ]


def test_many_at_a_time_are_all_there(tmp_path: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        disk = await yard.open(logged(tmp_path))
        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(disk.write, number * 4096, bytes([number + 1]) * 4096)

    in_yard(scenario)
    log = (tmp_path / "log").read_bytes()
    assert len(parse(log)[1]) == 201
    assert replay(log, bytes(MIB)) == (tmp_path / "disk").read_bytes()


def test_the_superblock_follows_at_intervals(tmp_path: Path, in_yard: Any) -> None:
    counts = []

    async def scenario(yard: Any) -> None:
        disk = await yard.open(logged(tmp_path, **{"log-super-update-interval": 3}))
        for _ in range(7):
            await disk.write(0, b"x" * 512)
            counts.append(int.from_bytes((tmp_path / "log").read_bytes()[16:24], "little"))
        await disk.flush()
        counts.append(int.from_bytes((tmp_path / "log").read_bytes()[16:24], "little"))

    in_yard(scenario)
    assert counts == [0, 0, 3, 3, 3, 6, 6, 8]


def failing(path: Path, iotype: str) -> dict[str, Any]:
    rule = {"event": "none", "iotype": iotype, "errno": errno.ENOSPC, "once": True}
    return {"driver": "blkdebug", "image": file(path), "discard": "unmap", "inject-error": [rule]}


async def change_and_flush(disk: Any) -> None:
    await disk.write_zeroes(0, 512)
    await disk.write(512, b"x" * 512)
    await disk.flush()


@pytest.mark.parametrize("kind", ["write", "flush"])
def test_a_disk_that_fails(tmp_path: Path, in_yard: Any, kind: str) -> None:
    """What may have been written is in the log, and a flush that was none is not."""

    async def scenario(yard: Any) -> None:
        disk = await yard.open({**logged(tmp_path), "file": failing(tmp_path / "disk", kind)})
        with pytest.raises(ImageIOError) as raised:
            await change_and_flush(disk)
        assert raised.value.errno == errno.ENOSPC
        await disk.flush()

    in_yard(scenario)
    entries = parse((tmp_path / "log").read_bytes())[1]
    assert [entry[:3] for entry in entries] == [(0, 1, 0), (1, 1, 0), (0, 0, FLUSH)]


@pytest.mark.parametrize("kind", ["write", "write-zeroes", "flush"])
def test_a_log_that_fails_has_no_gap(tmp_path: Path, in_yard: Any, kind: str) -> None:
    async def scenario(yard: Any) -> None:
        disk = await yard.open({**logged(tmp_path), "log": failing(tmp_path / "log", kind)})
        with pytest.raises(ImageIOError) as raised:
            await change_and_flush(disk)
        assert raised.value.errno == errno.ENOSPC
        await disk.write(512, b"y" * 512)

    in_yard(scenario)
    log = (tmp_path / "log").read_bytes()
    assert parse(log)[1][-2:] == [Entry(1, 1, 0, b"y" * 512), Entry(0, 0, FLUSH, b"")]
    assert replay(log, bytes(MIB)) == (tmp_path / "disk").read_bytes()


def test_a_log_that_needs_larger_blocks(tmp_path: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        log = {"driver": "blkdebug", "image": file(tmp_path / "log"), "align": 4096}
        disk = await yard.open({**logged(tmp_path), "log": log})
        for number in range(10):
            await disk.write(number * 512, bytes([number + 1]) * 1536)

    in_yard(scenario)
    log = (tmp_path / "log").read_bytes()
    log = log[: 512 * (1 + 10 * 4 + 1)]  # the last block ends behind the last entry
    assert replay(log, bytes(MIB)) == (tmp_path / "disk").read_bytes()


def test_requests_are_aligned_to_the_logs_sectors(tmp_path: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> int:
        disk = await yard.open(logged(tmp_path, **{"log-sector-size": 4096}))
        await disk.write(5000, b"z")
        limit: int = disk.node.limits.request_alignment
        return limit

    assert in_yard(scenario) == 4096
    size, entries = parse((tmp_path / "log").read_bytes())
    assert size == 4096
    assert entries[0][:3] == (1, 1, 0)


def test_block_status_is_the_disks(tmp_path: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        disk = await yard.open(logged(tmp_path))
        await disk.write(65536, b"d" * 65536)
        holes = [await disk.block_status(offset, 65536) for offset in (0, 65536, 131072)]
        assert [status.zero for status in holes] == [True, False, True]

    in_yard(scenario)


@pytest.mark.parametrize("read_only", [False, True])
def test_the_log_is_ours_alone(tmp_path: Path, in_yard: Any, read_only: bool) -> None:
    """What QEMU's x-debug-query-block-graph has for the edge."""

    async def scenario(yard: Any) -> None:
        options = {**logged(tmp_path), "read-only": read_only}
        options["file"]["read-only"] = options["log"]["read-only"] = read_only
        edge = (await yard.open(options)).node.children["log"]
        writes = Perm(0) if read_only else Perm.WRITE | Perm.RESIZE
        assert edge.perm == Perm.CONSISTENT_READ | writes
        assert edge.shared == Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED

    in_yard(scenario)


def test_a_read_only_disk_leaves_the_log_alone(tmp_path: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        disk = await yard.open({**logged(tmp_path), "read-only": True})
        await disk.read(0, 4096)

    in_yard(scenario)
    assert (tmp_path / "log").read_bytes() == b""
