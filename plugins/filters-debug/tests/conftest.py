# SPDX-License-Identifier: Apache-2.0
"""What the tests share: a yard, images, and QEMU's program beside ours."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from blockyard.yard import Yard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MIB = 1 << 20


class Qemu:
    """Runs qemu-io on an image; the tests compare what it says with what we do."""

    def __init__(self, program: str) -> None:
        self.program = program

    def io(self, name: str, *commands: str) -> list[str]:
        """What it says, timing lines left out, errors included."""
        words = [word for command in commands for word in ("-c", command)]
        done = subprocess.run(
            [self.program, "-f", "raw", *words, name],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return [line for line in (done.stdout + done.stderr).splitlines() if " ops; " not in line]


@pytest.fixture(scope="session")
def qemu() -> Qemu:
    """QEMU's qemu-io.

    The tests of behaviour are worth nothing without it, so its absence fails them.
    """
    program = shutil.which(os.environ.get("BLOCKYARD_QEMU_IO", "qemu-io"))
    assert program, "qemu-io is not installed"
    return Qemu(program)


@pytest.fixture(scope="session")
def in_yard() -> Callable[[Callable[[Any], Awaitable[Any]]], Any]:
    """Run a coroutine function with a yard; what it raises comes out as it is."""

    def run(function: Callable[[Any], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            async with Yard() as yard:
                try:
                    return await function(yard), None
                except Exception as error:
                    return None, error

        result, error = anyio.run(main)
        if error:
            raise error
        return result

    return run


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file of 1 MiB, zeroes."""
    path = tmp_path / "disk.img"
    path.touch()
    os.truncate(path, MIB)
    return path


def _make_known(name: str) -> None:
    """Make a module beside this one known, for importlib mode has no path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec
    assert spec.loader
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


for _name in ("log_model", "log_steps", "rule_model"):
    if _name not in sys.modules:
        _make_known(_name)
