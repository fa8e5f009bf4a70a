# SPDX-License-Identifier: Apache-2.0
"""A yard in a thread, driven as by a monitor, that shows nodes as files."""

import ctypes
import errno
import os
import subprocess
import time
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from blockyard.qmp.dispatcher import Dispatcher
from blockyard.yard import Yard
from blockyard_exports_fuse.mount import mount

LIMIT = 20
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


@pytest.fixture(scope="session")
def may_mount(tmp_path_factory):
    """Where nothing can be mounted the test is skipped, and says so.

    With BLOCKYARD_FUSE=required it fails.
    """
    path = tmp_path_factory.mktemp("fuse") / "file"
    path.write_bytes(b"")
    try:
        made = mount(str(path), read_only=True, allow_other=None)
    except OSError as error:
        if os.environ.get("BLOCKYARD_FUSE") == "required":
            raise
        pytest.skip(f"no FUSE here: {error}")
    made.unmount()
    os.close(made.fd)


def mounted(path):
    """The lines about a path in the table of mounts."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split(" ")[4] == str(path)]


def until(condition):
    """Wait for something that happens elsewhere."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def attempt(function, *args):
    """What a call returns, or the name of its errno."""
    try:
        return function(*args)
    except OSError as error:
        return errno.errorcode[error.errno]


def fallocate(fd, mode, offset, length):
    if LIBC.fallocate(fd, mode, offset, length) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Files:
    """A yard with the nodes ``file`` and, above it, ``disk`` (raw)."""

    until = staticmethod(until)
    mounted = staticmethod(mounted)
    attempt = staticmethod(attempt)
    fallocate = staticmethod(fallocate)

    def __init__(self, portal, yard, folder):
        self.portal = portal
        self.yard = yard
        self.folder = folder
        self.dispatcher = Dispatcher(yard, yard.registry)
        self.image = folder / "disk.img"
        self.events = []
        yard.events.subscribe(lambda event: self.events.append(event))

    def execute(self, command, /, **arguments):
        args = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self.portal.call(self.dispatcher.execute, command, args)

    def add_disk(self, content=b"", size=None, **options):
        self.image.write_bytes(content)
        os.truncate(self.image, len(content) if size is None else size)
        self.execute(
            "blockdev-add", driver="file", filename=str(self.image), node_name="file", **options
        )
        self.execute("blockdev-add", driver="raw", file="file", node_name="disk", **options)

    def place(self, name="mnt"):
        """An empty file to mount on."""
        path = self.folder / name
        path.write_bytes(b"below")
        return path

    def export(self, node="disk", name="mnt", **options):
        """Show a node; where."""
        path = self.place(name)
        self.add(path, node, name, **options)
        return path

    def add(self, path, node="disk", name="mnt", **options):
        self.execute(
            "block-export-add", type="fuse", id=name, node_name=node, mountpoint=str(path),
            **options,
        )  # fmt: skip

    def delete(self, name="mnt"):
        self.execute("block-export-del", id=name)
        self.until(lambda: not self.find(name))

    def find(self, name="mnt"):
        return self.portal.call(self.yard.exports.find, name)

    def statistics(self, name="mnt"):
        return self.portal.call(self.find(name).statistics)


@pytest.fixture
def portal():
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def files(may_mount, portal, tmp_path):
    with portal.wrap_async_context_manager(Yard()) as yard:
        yield Files(portal, yard, tmp_path)
    assert not mounted_below(tmp_path)


def mounted_below(folder):
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split(" ")[4].startswith(f"{folder}/")]


@pytest.fixture
def run():
    """``run("qemu-img", ...)``: the output of a program that succeeds."""

    def call(*words, **options):
        done = subprocess.run(
            list(map(str, words)), capture_output=True, text=True, timeout=60, **options
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    return call


@pytest.fixture(name="until")
def until_():
    return until


@pytest.fixture(name="attempt")
def attempt_():
    return attempt
