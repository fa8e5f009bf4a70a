# SPDX-License-Identifier: Apache-2.0
"""Daemons as real processes, and a QMP client that says exactly what a test wants."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import sys
sys.argv[0] = "blockyard-daemon"
from blockyard.daemon.main import main
sys.exit(main())
"""
DAEMON = [sys.executable, "-c", PROGRAM]
PATIENCE = 20.0


class Client:
    """A connection to a monitor."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        self._rest = b""

    @classmethod
    def connect(cls, path: Path | str) -> "Client":
        """Connect as soon as the socket is there."""
        deadline = time.monotonic() + PATIENCE
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                sock.close()
                assert time.monotonic() < deadline, "nobody listens"
                time.sleep(0.01)
            else:
                return cls(sock)

    def negotiate(self, *enable: str) -> "Client":
        """Take the greeting and enter command mode."""
        assert "QMP" in self.read()
        arguments = {"enable": list(enable)} if enable else {}
        assert self.run("qmp_capabilities", **arguments) == {}
        return self

    def send(self, data: bytes | str | dict[str, Any]) -> None:
        """Send text as it is, or an object as JSON."""
        if isinstance(data, dict):
            data = json.dumps(data)
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def line(self) -> bytes:
        """One line; empty at the end."""
        while b"\n" not in self._rest:
            chunk = self.sock.recv(1 << 16)
            if not chunk:
                return b""
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def read(self) -> dict[str, Any]:
        """One message."""
        found: dict[str, Any] = json.loads(self.line())
        return found

    def ask(self, data: bytes | str | dict[str, Any]) -> dict[str, Any]:
        """Send and take one message."""
        self.send(data)
        return self.read()

    def error(self, name: str, /, **arguments: Any) -> str:
        """The ``desc`` with which a command is refused."""
        answer = self.ask({"execute": name, "arguments": arguments})
        return str(answer["error"]["desc"])

    def run(self, name: str, /, **arguments: Any) -> Any:
        """What a command answers; events that come before are dropped."""
        self.send({"execute": name, "arguments": arguments})
        while "event" in (answer := self.read()):
            pass
        assert "return" in answer, answer
        return answer["return"]

    def run_or_error(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        """The whole answer; events that come before are dropped."""
        self.send({"execute": name, "arguments": arguments})
        while "event" in (answer := self.read()):
            pass
        return answer

    def ended(self) -> bool:
        """Whether the server has closed the connection."""
        try:
            while self.sock.recv(1 << 16):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Disconnect."""
        self.sock.close()


class Running:
    """A daemon, with monitors on ``qmp0``, ``qmp1``... in its folder."""

    def __init__(self, command: list[str], folder: Path, arguments: list[str], **more: Any) -> None:
        self.folder = folder
        self.process = subprocess.Popen([*command, *arguments], cwd=folder, **more)
        self.clients: list[Client] = []

    def connect(self, number: int = 0) -> Client:
        """A connection to a monitor, before the greeting."""
        self.clients.append(Client.connect(self.folder / f"qmp{number}"))
        return self.clients[-1]

    def client(self, number: int = 0) -> Client:
        """A connection in command mode."""
        return self.connect(number).negotiate()

    def wait(self) -> int:
        """The exit status."""
        return self.process.wait(PATIENCE)

    def stop(self) -> None:
        """End it, however it is."""
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()


def monitors(count: int) -> list[str]:
    """Options for monitors on ``qmp0``..."""
    options = []
    for i in range(count):
        options += ["--chardev", f"socket,id=c{i},path=qmp{i},server=on,wait=off"]
        options += ["--monitor", f"c{i}"]
    return options


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a daemon: ``start(*options, monitors=1, **Popen's)``."""
    running: list[Running] = []

    def make(*options: str, count: int = 1, **more: Any) -> Running:
        running.append(Running(DAEMON, tmp_path, [*monitors(count), *options], **more))
        return running[-1]

    yield make
    for each in running:
        each.stop()


@pytest.fixture
def client(start: Callable[..., Running]) -> Client:
    """A client of a fresh daemon, in command mode."""
    return start().client()


@pytest.fixture
def once(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a daemon that is expected to end by itself."""

    def run(*options: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*DAEMON, *options], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE,
            check=False, stdin=subprocess.DEVNULL, **more,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def qsd() -> str:
    """A real qemu-storage-daemon of the interface's version."""
    found = os.environ.get("BLOCKYARD_QSD") or shutil.which("qemu-storage-daemon")
    if not found:
        pytest.skip("no qemu-storage-daemon here")
    version = subprocess.run([found, "-V"], capture_output=True, text=True, check=True).stdout
    if "version 11." not in version:
        pytest.skip(f"its texts are another version's: {version.splitlines()[0]}")
    return found


@pytest.fixture
def peer(qsd: str, tmp_path: Path) -> Iterator[Client]:
    """A client of a real qemu-storage-daemon."""
    folder = tmp_path / "peer"
    folder.mkdir()
    running = Running([qsd], folder, monitors(1))
    yield running.client()
    running.stop()
