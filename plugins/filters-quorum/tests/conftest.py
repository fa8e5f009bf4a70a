# SPDX-License-Identifier: Apache-2.0
"""What the tests share: children that fail, what monitors are told, a real daemon's disk."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blockyard.qmp.event import event_type
from blockyard.schema import dump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _make_known(name: str) -> None:
    """Make a module beside this one known, for importlib mode has no path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec
    assert spec.loader
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


if "vote_model" not in sys.modules:
    _make_known("vote_model")


@pytest.fixture
def told(ours: Any) -> list[dict[str, Any]]:
    """What is emitted from now on, whatever the limits of rate."""
    found: list[dict[str, Any]] = []

    def emit(data: Any) -> None:
        found.append({"event": event_type(type(data)).name, **dump(data)})

    ours.yard.events.emit = emit
    return found


class Theirs:
    """A real daemon that exports nodes by NBD."""

    def __init__(self, program: str, socket: Path) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [program, "--chardev", "stdio,id=m", "--monitor", "m"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.run("qmp_capabilities")
        address = {"type": "unix", "data": {"path": str(socket)}}
        self.run("nbd-server-start", addr=address)

    def run(self, command: str, /, **arguments: Any) -> Any:
        """What it answers; events that come before that are kept."""
        assert self._process.stdin
        assert self._process.stdout
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._process.stdin.write(json.dumps({"execute": command, "arguments": named}) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            message = json.loads(line)
            if "event" in message:
                self.events.append({"event": message["event"], **message.get("data", {})})
            elif "QMP" not in message:
                assert "return" in message, message
                return message["return"]
        raise AssertionError(f"qemu-storage-daemon ended: {self._process.wait()}")

    def export(self, node: str) -> None:
        """Let clients write the node."""
        self.run("block-export-add", type="nbd", id=node, node_name=node, name=node, writable=True)

    def io(self, node: str, *commands: str) -> list[str]:
        """What qemu-io says to each."""
        words = [word for command in commands for word in ("-c", command)]
        url = f"nbd+unix:///{node}?socket={self.socket}"
        program = shutil.which(os.environ.get("BLOCKYARD_QEMU_IO", "qemu-io"))
        assert program, "qemu-io is not installed"
        done = subprocess.run(
            [program, "-f", "raw", *words, url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return [line for line in (done.stdout + done.stderr).splitlines() if " ops; " not in line]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def theirs(same_answers: Any, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """A context manager: a real daemon."""

    @contextmanager
    def start() -> Iterator[Theirs]:
        if same_answers.QSD is None:
            pytest.skip("no qemu-storage-daemon here")
        daemon = Theirs(same_answers.QSD, tmp_path / "nbd.sock")
        try:
            yield daemon
        finally:
            daemon.close()

    return start
