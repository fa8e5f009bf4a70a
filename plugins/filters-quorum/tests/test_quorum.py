# SPDX-License-Identifier: Apache-2.0
"""Reading where one child is enough, blkverify, block status, and what is reported."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from blockyard.errors import ImageIOError
from blockyard_filters_quorum import driver
from blockyard_filters_quorum.native import lib

if TYPE_CHECKING:
    from pathlib import Path

IMG = os.environ.get("BLOCKYARD_QEMU_IMG", "qemu-img")
IO = os.environ.get("BLOCKYARD_QEMU_IO", "qemu-io")
MIB = 1 << 20


def files(folder: Path, *contents: bytes) -> list[dict[str, Any]]:
    """Options of new files."""
    made = []
    for index, content in enumerate(contents):
        (folder / f"c{index}").write_bytes(content)
        made.append({"driver": "file", "filename": str(folder / f"c{index}"), "discard": "unmap"})
    return made


def quorum(children: list[Any], threshold: int = 2, **options: Any) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return {"driver": "quorum", "children": children, "vote-threshold": threshold, **named}


def failing(child: dict[str, Any], name: str, **rule: Any) -> dict[str, Any]:
    return {
        "driver": "blkdebug",
        "node-name": name,
        "image": child,
        "inject-error": [{"event": "none", "errno": errno.EIO, **rule}],
    }


def test_a_difference_under_blkverify_is_told_in_qemus_words(
    ours: Any, told: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytes(8192)
    spoiled = content[:700] + b"?" + content[701:]
    options = quorum(files(tmp_path, content, spoiled), blkverify=True)

    async def run() -> None:
        async with await ours.yard.open(options) as disk:
            with pytest.raises(ImageIOError) as raised:
                await disk.read(512, 1024)
            assert raised.value.errno == errno.EIO
            assert await disk.read(1024, 4096) == bytes(4096)  # the others are served
            await disk.write(0, b"x" * 4096)
            assert await disk.read(0, 4096) == b"x" * 4096

    with caplog.at_level(logging.ERROR):
        ours.call(run)
    for index, data in enumerate((content, spoiled)):
        (tmp_path / f"c{index}").write_bytes(data)
    command = [IO, "-r", "-c", "read 512 1024", "json:" + json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert [record.getMessage() for record in caplog.records] == done.stderr.splitlines()
    assert told == []


def test_blkverify_means_nothing_where_one_child_is_read(ours: Any, tmp_path: Path) -> None:
    options = quorum(files(tmp_path, b"a" * 512, b"b" * 512), blkverify=True, read_pattern="fifo")

    async def run() -> None:
        async with await ours.yard.open(options) as disk:
            assert await disk.read(0, 512) == b"a" * 512

    ours.call(run)


def test_discards_do_nothing_as_there(ours: Any, tmp_path: Path) -> None:
    content = b"a" * 65536

    async def run() -> None:
        options = quorum(files(tmp_path, content, content), discard="unmap")
        async with await ours.yard.open(options) as disk:
            await disk.discard(0, 65536)

    ours.call(run)
    assert (tmp_path / "c0").read_bytes() == (tmp_path / "c1").read_bytes() == content


def test_zeroes_that_must_be_fast(ours: Any, told: list[Any], tmp_path: Path) -> None:
    """All children or none: one that cannot is as slow as it is when another can."""
    content = b"a" * 65536

    async def run() -> None:
        fast, slow = files(tmp_path, content, content)
        slow = {"driver": "blkdebug", "image": slow, "opt-write-zero": 65536}
        async with await ours.yard.open(quorum([fast, slow])) as disk:
            await disk.write_zeroes(4096, 4096, no_fallback=True)
            assert await disk.read(0, 65536) == content[:4096] + bytes(4096) + content[8192:]
        null = {"driver": "null-co", "size": 65536}
        async with await ours.yard.open(quorum([null, null])) as disk:
            with pytest.raises(ImageIOError) as raised:
                await disk.write_zeroes(4096, 4096, no_fallback=True)
            assert raised.value.errno == errno.ENOTSUP

    ours.call(run)
    assert told == []
    assert (tmp_path / "c0").read_bytes() == (tmp_path / "c1").read_bytes()


@pytest.mark.parametrize("deaf", [False, True])
def test_a_disk_that_fails_all_the_time_does_not_fill_the_memory(
    ours: Any, told: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    """Reports that nobody reads are no more than so many; of others none is left out."""

    class Deaf:
        def __getattr__(self, name: str) -> Any:
            return getattr(lib, name)

        def by_quorum_heard(self, state: Any) -> None:
            pass

    if deaf:
        monkeypatch.setattr(driver, "lib", Deaf())
    bad, good = files(tmp_path, bytes(512), bytes(512))

    async def run() -> None:
        options = quorum([failing(bad, "bad", iotype="read", immediately=True), good], 1)
        async with await ours.yard.open(options) as disk:
            for _ in range(2000):
                await disk.read(0, 512)

    ours.call(run)
    assert len(told) == (1024 if deaf else 2000)
    assert {event["node-name"] for event in told} == {"bad"}


def test_reports_are_limited_for_each_child(ours: Any, tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []

    async def run() -> None:
        ours.yard.events.subscribe(heard.append)
        children = [
            failing(child, name, iotype="read")
            for child, name in zip(files(tmp_path, *[bytes(512)] * 3), "abc", strict=True)
        ]
        async with await ours.yard.open(quorum(children, 1)) as disk:
            for _ in range(20):
                with pytest.raises(ImageIOError):
                    await disk.read(0, 512)

    ours.call(run)
    first = [(event["event"], event["data"].get("node-name")) for event in heard[:4]]
    assert first == [("QUORUM_REPORT_BAD", name) for name in "abc"] + [("QUORUM_FAILURE", None)]
    assert len(heard) < 20


# -- block status, as qemu-img map tells it


def status_of(ours: Any, options: dict[str, Any]) -> list[tuple[int, int, bool]]:
    """(start, length, zero) of each extent."""
    found: list[tuple[int, int, bool]] = []

    async def run() -> None:
        async with await ours.yard.open({**options, "read-only": True}) as disk:
            at = 0
            while at < disk.length:
                status = await disk.block_status(at, disk.length - at)
                zero = status.zero
                if found and found[-1][2] == zero:
                    found[-1] = (found[-1][0], found[-1][1] + status.bytes, zero)
                else:
                    found.append((at, status.bytes, zero))
                at += status.bytes

    ours.call(run)
    return found


def mapped(options: dict[str, Any]) -> list[tuple[int, int, bool]]:
    command = [IMG, "map", "--output=json", "json:" + json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [(each["start"], each["length"], each["zero"]) for each in json.loads(done.stdout)]


def test_zero_is_what_all_children_know_to_be_zero(ours: Any, tmp_path: Path) -> None:
    children = files(tmp_path, b"", b"", b"")
    writes = [[(0, 65536)], [(0, 65536), (3 << 18, 4096)], [(0, 131072), (524288, 65536)]]
    for index, ranges in enumerate(writes):
        os.truncate(tmp_path / f"c{index}", MIB)
        with (tmp_path / f"c{index}").open("r+b") as image:
            for at, length in ranges:
                image.seek(at)
                image.write(b"x" * length)
    options = quorum(children)
    found = status_of(ours, options)

    assert found == mapped(options)
    assert len(found) == 6
    fifo = quorum(children, read_pattern="fifo")
    assert status_of(ours, fifo) == mapped(fifo)


def test_a_child_that_cannot_say_counts_as_data(ours: Any, tmp_path: Path) -> None:
    first, second = files(tmp_path, b"", b"")
    for index in (0, 1):
        os.truncate(tmp_path / f"c{index}", MIB)
    options = quorum([first, failing(second, "silent", iotype="block-status")])

    assert status_of(ours, options) == mapped(options) == [(0, MIB, False)]


def test_formats_below(ours: Any, tmp_path: Path) -> None:
    """The first of several children that hold data: the longest extent counts."""
    commands = [
        ["write 64k 64k", "write -z 128k 64k", "write 512k 128k"],
        ["write -z 64k 128k", "write 512k 64k", "write -z 576k 256k"],
    ]
    children = []
    for index, each in enumerate(commands):
        path = str(tmp_path / f"q{index}")
        subprocess.run([IMG, "create", "-q", "-f", "qcow2", path, "1M"], check=True)
        words = [word for command in each for word in ("-c", command)]
        subprocess.run([IO, "-f", "qcow2", *words, path], check=True, stdout=subprocess.DEVNULL)
        children.append({"driver": "qcow2", "file": {"driver": "file", "filename": path}})
    options = quorum(children, 1)
    found = status_of(ours, options)

    assert found == mapped(options)
    assert (512 << 10, 128 << 10, False) in found
