# SPDX-License-Identifier: Apache-2.0
"""Daemons under test, and the real clients they are tested with."""

import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

SCRIPTS = Path(sysconfig.get_path("scripts"))
LIMIT = 20


def _load_package(name):
    """A package beside this file, for importlib mode has no path."""
    folder = Path(__file__).parent / name
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


guest_package = _load_package("guest")


def find_program(name):
    """A peer's path: BLOCKYARD_QEMU_IMG and so on, or PATH; skip without it."""
    variable = f"BLOCKYARD_{name.upper().replace('-', '_')}"
    path = os.environ.get(variable) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def our_program(name):
    """A console script of this environment."""
    path = SCRIPTS / name
    return str(path) if path.exists() else find_program(name)


@pytest.fixture(scope="session")
def client():
    """``client("nbdinfo", ...)``: run a real program; its output, or AssertionError."""

    def call(name, *words, ok=True, **options):
        done = subprocess.run(
            [find_program(name), *map(str, words)],
            capture_output=True, text=True, timeout=120, **options,
        )  # fmt: skip
        assert not ok or done.returncode == 0, f"{name} {words}: {done.stdout}{done.stderr}"
        return done.stdout if ok else done

    return call


class Daemon:
    """A started blockyard-daemon (or a peer with its options) with a monitor."""

    def __init__(self, folder, words, program, env=None):
        self.folder = folder
        self.nbd = folder / "nbd.sock"
        self.monitor = folder / "qmp.sock"
        self.log = folder / "daemon.log"
        chardev = f"socket,id=qmp,path={self.monitor},server=on,wait=off"
        command = [*program, "--chardev", chardev, "--monitor", "chardev=qmp", *map(str, words)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env
            )
        self.events = []
        #: The exit status that is right.
        self.status = 0
        self._connect()

    def _connect(self):
        deadline = time.monotonic() + LIMIT
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        while True:
            try:
                self.socket.connect(str(self.monitor))
                break
            except OSError:
                alive = self.process.poll() is None and time.monotonic() < deadline
                assert alive, f"the daemon did not start: {self.log.read_text()}"
                time.sleep(0.01)
        self._lines = self.socket.makefile("rw")
        self.greeting = json.loads(self._lines.readline())
        self.qmp("qmp_capabilities")

    def execute(self, command, **arguments):
        """Send a command; the whole reply.  Events that come first are kept."""
        names = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._lines.write(json.dumps({"execute": command, "arguments": names}) + "\n")
        self._lines.flush()
        while True:
            line = self._lines.readline()
            assert line, f"the daemon is gone: {self.log.read_text()}"
            message = json.loads(line)
            if "event" not in message:
                return message
            self.events.append(message)

    def qmp(self, command, **arguments):
        """Send a command that must succeed; its result."""
        reply = self.execute(command, **arguments)
        assert "return" in reply, f"{command}: {reply}"
        return reply["return"]

    def refused(self, command, **arguments):
        """Send a command that must fail; the error's text."""
        reply = self.execute(command, **arguments)
        assert "error" in reply, f"{command} succeeded: {reply}"
        return reply["error"]["desc"]

    def uri(self, name):
        """Of an export on the unix socket."""
        return f"nbd+unix:///{name}?socket={self.nbd}"

    def serve(self, image, name="disk", *, driver="raw", writable=True, **options):
        """Open an image and export it; its URI."""
        self.qmp(
            "blockdev-add", driver=driver, node_name=name, read_only=not writable,
            file={"driver": "file", "filename": str(image)}, **options,
        )  # fmt: skip
        if not self.nbd.exists():
            self.qmp("nbd-server-start", addr={"type": "unix", "data": {"path": str(self.nbd)}})
        self.qmp("block-export-add", type="nbd", id=name, node_name=name, writable=writable)
        return self.uri(name)

    def stop(self, number=signal.SIGTERM):
        """End it; its exit status must be :attr:`status`."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(LIMIT)
        assert status == self.status, f"exit status {status}: {self.log.read_text()}"
        return self.log.read_text()

    def kill(self):
        """At a test's end, whatever happened."""
        self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def daemon(tmp_path_factory):
    """``daemon("--blockdev", ...)`` starts one; all end with the test, cleanly."""
    started = []

    def start(*words, program=None, **options):
        folder = tmp_path_factory.mktemp("daemon")
        program = program or [our_program("blockyard-daemon")]
        started.append(Daemon(folder, words, program, **options))
        return started[-1]

    try:
        yield start
        for one in started:
            one.stop()
    finally:
        for one in started:
            one.kill()


@pytest.fixture
def peer(daemon):
    """The same for qemu-storage-daemon."""

    def start(*words):
        return daemon(*words, program=[find_program("qemu-storage-daemon")])

    return start


@pytest.fixture
def qcow2(client, image, tmp_path):
    """The same disk as a qcow2 image."""
    path = tmp_path / "disk.qcow2"
    client("qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, path)
    return path


@pytest.fixture
def image(tmp_path):
    """A raw image of 8 MiB: random data, with a hole from 4 to 6 MiB."""
    path = tmp_path / "disk.img"
    data = random.Random(7)
    with path.open("wb") as file:
        file.write(data.randbytes(4 << 20))
        file.seek(6 << 20)
        file.write(data.randbytes(2 << 20))
    return path


@pytest.fixture
def python():
    """This environment's interpreter."""
    return sys.executable


@pytest.fixture
def guest(tmp_path_factory):
    """A :class:`guest.Machine`: another kernel over this machine's files.

    Where there can be none the test is skipped, unless BLOCKYARD_GUEST is ``required``.
    """
    try:
        return guest_package.Machine(tmp_path_factory.mktemp("guest"))
    except guest_package.UnavailableError as error:
        if os.environ.get("BLOCKYARD_GUEST") == "required":
            raise
        pytest.skip(f"no guest: {error}")
