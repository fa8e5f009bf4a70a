# SPDX-License-Identifier: Apache-2.0
"""Descriptor sets, and their commands over a real socket."""

import array
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blockyard.errors import BlockyardError, InvalidOption, NotFound
from blockyard.fdset import FdSets


@pytest.fixture
def sets() -> Iterator[FdSets]:
    made = FdSets()
    yield made
    for found in made.query():
        if found.members:
            made.remove(found.id)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4096))
    return path


def opened(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_numbers_are_the_lowest_free_ones(sets: FdSets, image: Path) -> None:
    numbers = [sets.add(os.open(image, os.O_RDONLY), given).id for given in (1, None, None, 0)]
    assert numbers == [1, 0, 2, 0]
    assert [found.id for found in sets.query()] == [2, 1, 0]
    with pytest.raises(InvalidOption, match="Parameter 'fdset-id' expects a non-negative value"):
        sets.add(0, -1)


def test_the_descriptor_that_fits_is_duplicated(sets: FdSets, image: Path) -> None:
    reading, writing = os.open(image, os.O_RDONLY), os.open(image, os.O_RDWR)
    sets.add(reading, 3)
    sets.add(writing, 3)
    for flags in (os.O_RDONLY, os.O_RDWR):
        fd = sets.open("/dev/fdset/3", flags | os.O_NONBLOCK)
        assert fd not in (reading, writing)
        assert not os.get_inheritable(fd)
        assert (os.write if flags else os.read)(fd, b"x" if flags else 1)
        sets.close(fd)
        assert not opened(fd)
    with pytest.raises(BlockyardError, match=r"matching flags=0x1$"):
        sets.open("/dev/fdset/3", os.O_WRONLY)


@pytest.mark.parametrize("name", ["", "x", "-1", "1x", " 1", "²", "1" * 40])
def test_names_that_are_no_numbers(sets: FdSets, name: str) -> None:
    with pytest.raises(InvalidOption, match="^Could not parse fdset /dev/fdset/"):
        sets.open(f"/dev/fdset/{name}", os.O_RDONLY)


def test_a_removed_set_lives_while_it_is_used(sets: FdSets, image: Path) -> None:
    fd = os.open(image, os.O_RDONLY)
    sets.add(fd, 0)
    used = sets.open("/dev/fdset/0", os.O_RDONLY)
    other = os.open(image, os.O_RDONLY)
    sets.remove(0)
    assert not opened(fd)
    assert [(found.id, found.members) for found in sets.query()] == [(0, [])]
    sets.replace(used, other)
    assert not opened(used)
    assert opened(other)
    assert [found.duplicates for found in sets.query()] == [{other}]
    sets.close(other)
    assert sets.query() == []


def test_what_is_not_there_cannot_be_removed(sets: FdSets, image: Path) -> None:
    fd = os.open(image, os.O_RDONLY)
    sets.add(fd, 0)
    for arguments, text in (((1,), "fdset-id:1"), ((0, 999), "fdset-id:0, fd:999")):
        with pytest.raises(NotFound, match=f"^File descriptor named '{text}' not found$"):
            sets.remove(*arguments)
    assert opened(fd)
    sets.remove(0, fd)
    assert sets.query() == []


class Client:
    """A QMP client that can pass descriptors."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("r")
        self.lines.readline()

    def __call__(self, command: str, fd: int | None = None, **arguments: Any) -> Any:
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        message = json.dumps({"execute": command, "arguments": words}).encode() + b"\n"
        rights = (
            [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        )
        self.socket.sendmsg([message], rights)
        while "event" in (reply := json.loads(self.lines.readline())):
            pass
        return reply.get("return", reply.get("error", {}).get("desc"))

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    path = tmp_path / "qmp"
    start = "import sys; from blockyard.daemon.main import main; sys.exit(main())"
    chardev = f"socket,id=m,path={path},server=on,wait=off"
    daemon = subprocess.Popen([sys.executable, "-c", start, "--chardev", chardev, "--monitor", "m"])
    try:
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        made = Client(path)
        made("qmp_capabilities")
        yield made
        made.close()
    finally:
        daemon.terminate()
        daemon.wait(10)


def test_the_commands(client: Client, image: Path) -> None:
    fd = os.open(image, os.O_RDONLY)
    try:
        assert client("add-fd") == "No file descriptor supplied via SCM_RIGHTS"
        assert client("add-fd", fd, fdset_id=-3) == (
            "Parameter 'fdset-id' expects a non-negative value"
        )
        first = client("add-fd", fd, opaque="a note")
        second = client("add-fd", fd, fdset_id=7)
    finally:
        os.close(fd)
    assert (first["fdset-id"], second["fdset-id"]) == (0, 7)
    assert client("query-fdsets") == [
        {"fdset-id": 7, "fds": [{"fd": second["fd"]}]},
        {"fdset-id": 0, "fds": [{"fd": first["fd"], "opaque": "a note"}]},
    ]
    assert client("remove-fd", fdset_id=9) == "File descriptor named 'fdset-id:9' not found"
    assert client("remove-fd", fdset_id=0, fd=first["fd"]) == {}
    assert client("remove-fd", fdset_id=7) == {}
    assert client("query-fdsets") == []
