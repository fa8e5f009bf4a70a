# SPDX-License-Identifier: Apache-2.0
"""What is opened, what is refused, and in which words."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from blockyard.errors import BlockyardError
from blockyard.fdset import FD_SETS

if TYPE_CHECKING:
    from pathlib import Path


def refusal(in_yard: Any, **options: Any) -> str:
    async def attempt(yard: Any) -> None:
        await yard.open(**options)

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BlockyardError) as caught:
        in_yard(attempt)
    assert len(os.listdir("/proc/self/fd")) == before
    return str(caught.value)


def test_a_missing_file(in_yard: Any) -> None:
    text = refusal(in_yard, driver="file", filename="/nonexistent")
    assert text == "Could not open '/nonexistent': No such file or directory"


def test_a_prefix_is_part_of_the_name(in_yard: Any, image: Path) -> None:
    text = refusal(in_yard, driver="file", filename=f"file:{image}")
    assert text == f"Could not open 'file:{image}': No such file or directory"


def test_an_empty_name(in_yard: Any) -> None:
    text = refusal(in_yard, driver="file", filename="")
    assert text == "The 'file' block driver requires a file name"


def test_a_fifo_does_not_hang(in_yard: Any, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for read_only in (True, False):
        text = refusal(in_yard, driver="file", filename=str(fifo), read_only=read_only)
        assert text == f"'file' driver requires '{fifo}' to be a regular file"
    text = refusal(in_yard, driver="host_device", filename=str(fifo))
    assert text.endswith("to be either a character or block device")


def test_a_socket_and_a_directory(in_yard: Any, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        text = refusal(in_yard, driver="file", filename=str(path))
    assert text == f"Could not open '{path}': No such device or address"
    text = refusal(in_yard, driver="file", filename=str(tmp_path))
    assert text == f"Could not open '{tmp_path}': Is a directory"
    text = refusal(in_yard, driver="file", filename=str(tmp_path), read_only=True)
    assert text == f"'file' driver requires '{tmp_path}' to be a regular file"


def test_each_driver_takes_its_kind_only(in_yard: Any, image: Path) -> None:
    text = refusal(in_yard, driver="file", filename="/dev/null")
    assert text == "'file' driver requires '/dev/null' to be a regular file"
    text = refusal(in_yard, driver="host_device", filename=str(image))
    assert text == (
        f"'host_device' driver requires '{image}' to be either a character or block device"
    )


def test_a_name_with_a_null_byte(in_yard: Any) -> None:
    refusal(in_yard, driver="file", filename="a\0b")


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_without_an_end(in_yard: Any, read_only: bool) -> None:
    where = {"filename": "/proc/self/mem", "read_only": read_only}
    text = refusal(in_yard, driver="file", **where)
    assert text == "Could not refresh total sector count: Invalid argument"
    text = refusal(in_yard, driver="host_device", **where)
    assert text.endswith("to be either a character or block device")


@pytest.mark.parametrize(
    ("asked", "given"), [(None, 0), (0, 0), (7, 7), (-1, 0), (1 << 32, 0), ((1 << 63) - 1, 0)]
)
def test_any_batch_is_taken(in_yard: Any, image: Path, asked: int | None, given: int) -> None:
    async def attempt(yard: Any) -> int:
        options = {} if asked is None else {"aio_max_batch": asked}
        where = {"node_name": "disk", "filename": str(image)}
        await yard.open(driver="file", aio="io_uring", **where, **options)
        return int(yard.graph.find("disk").driver.settings(-1).max_batch)

    assert in_yard(attempt) == given


def test_native_aio_wants_o_direct(in_yard: Any, image: Path) -> None:
    text = refusal(in_yard, driver="file", filename=str(image), aio="native")
    assert text == (
        "aio=native was specified, but it requires cache.direct=on, which was not specified."
    )


def test_there_are_no_reservation_managers(in_yard: Any, image: Path) -> None:
    text = refusal(in_yard, driver="file", filename=str(image), pr_manager="pr0")
    assert text == "No persistent reservation manager with id 'pr0'"


def test_a_read_only_device(in_yard: Any, image: Path, loop_device: Any) -> None:
    device = loop_device(image, "--read-only")
    text = refusal(in_yard, driver="host_device", filename=device)
    # The kernel refuses at once, or lets us open and says so when asked.
    assert text in (
        f"Could not open '{device}': Permission denied",
        "The device is not writable: Permission denied",
    )


def test_many_are_opened_while_a_fifo_is_tried(in_yard: Any, tmp_path: Path) -> None:
    start = time.monotonic()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for _ in range(5):
        refusal(in_yard, driver="file", filename=str(fifo))
    assert time.monotonic() - start < 20


# -- descriptor sets


@pytest.fixture
def fdset() -> Any:
    made: list[int] = []

    def add(path: Path, flags: int) -> str:
        found = FD_SETS.add(os.open(path, flags), made[0] if made else None)
        made.append(found.id)
        return f"/dev/fdset/{found.id}"

    yield add
    for number in set(made):
        if any(found.id == number and found.members for found in FD_SETS.query()):
            FD_SETS.remove(number)
    assert FD_SETS.query() == []


def test_a_set_gives_the_descriptor_that_fits(in_yard: Any, image: Path, fdset: Any) -> None:
    fdset(image, os.O_RDONLY)
    name = fdset(image, os.O_RDWR)

    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=name) as disk:
            await disk.write(5, b"set")
        async with await yard.open(driver="file", filename=name, read_only=True) as disk:
            assert await disk.read(5, 3) == b"set"

    in_yard(check)


def test_a_set_without_a_fitting_descriptor(in_yard: Any, image: Path, fdset: Any) -> None:
    name = fdset(image, os.O_RDONLY)
    text = refusal(in_yard, driver="file", filename=name)
    assert text.startswith("Failed to find file descriptor with matching flags=0x")


def test_a_set_that_is_not_there(in_yard: Any) -> None:
    assert refusal(in_yard, driver="file", filename="/dev/fdset/x") == (
        "Could not parse fdset /dev/fdset/x"
    )
    assert refusal(in_yard, driver="file", filename="/dev/fdset/77") == (
        "Failed to find fdset /dev/fdset/77"
    )


def test_a_set_lives_while_its_descriptors_are_used(in_yard: Any, image: Path, fdset: Any) -> None:
    name = fdset(image, os.O_RDWR)
    number = int(name.rsplit("/", 1)[1])

    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=name) as disk:
            FD_SETS.remove(number)
            assert [(found.id, found.members) for found in FD_SETS.query()] == [(number, [])]
            assert len(await disk.read(0, 512)) == 512
        assert FD_SETS.query() == []

    in_yard(check)
