# SPDX-License-Identifier: Apache-2.0
"""Images, devices and the real QEMU, for the file drivers' tests."""

import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from blockyard.yard import Yard

SIZE = 1 << 20


def tool(name: str, variable: str) -> str:
    path = shutil.which(os.environ.get(variable, name))
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def in_yard() -> Callable[[Callable[[Yard], Awaitable[Any]]], Any]:
    """Run an async function of a yard; what it raises comes out as it is."""

    def run(function: Callable[[Yard], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            async with Yard() as yard:
                try:
                    return True, await function(yard)
                except Exception as error:
                    return False, error

        good, result = anyio.run(main)
        if not good:
            raise result
        return result

    return run


@pytest.fixture
def qemu_io() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``qemu_io(image, "write 0 512")``: run commands on a raw image."""
    program = tool("qemu-io", "BLOCKYARD_QEMU_IO")

    def run(path: Path, *commands: str) -> subprocess.CompletedProcess[str]:
        arguments = [part for command in commands for part in ("-c", command)]
        return subprocess.run(
            [program, "-f", "raw", *arguments, str(path)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


@pytest.fixture
def qemu_img() -> Callable[..., subprocess.CompletedProcess[str]]:
    program = tool("qemu-img", "BLOCKYARD_QEMU_IMG")

    def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


class Daemon:
    """A real qemu-storage-daemon, by QMP."""

    def __init__(self, program: str) -> None:
        self.process = subprocess.Popen(
            [program, "--chardev", "stdio,id=m", "--monitor", "m"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.process.stdin.write(json.dumps({"execute": command, "arguments": words}) + "\n")
        self.process.stdin.flush()
        while True:
            reply = json.loads(self.process.stdout.readline())
            if "event" not in reply:
                return reply.get("return", reply.get("error", {}).get("desc"))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    peer = Daemon(tool("qemu-storage-daemon", "BLOCKYARD_QSD"))
    yield peer
    peer.close()


def root_command(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        pytest.skip(f"{arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 1 MiB, which is soon full."""
    folder = tmp_path / "small"
    folder.mkdir()
    root_command("mount", "-t", "tmpfs", "-o", "size=1M", "none", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.fixture
def small_ext4(tmp_path: Path) -> Iterator[Path]:
    """An ext4 file system of 16 MiB: less fits into it."""
    folder = tmp_path / "ext4"
    folder.mkdir()
    with (tmp_path / "ext4.img").open("wb") as file:
        file.truncate(16 << 20)
    root_command("mkfs.ext4", "-q", str(tmp_path / "ext4.img"))
    root_command("mount", "-o", "loop", str(tmp_path / "ext4.img"), str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.fixture
def loop_device() -> Iterator[Callable[[Path], str]]:
    """``loop_device(file)``: a block device on a file."""
    made: list[str] = []

    def make(path: Path, *options: str) -> str:
        made.append(root_command("losetup", "-f", "--show", *options, str(path)))
        return made[-1]

    yield make
    for device in made:
        subprocess.run(["losetup", "-d", device], check=False)
