# SPDX-License-Identifier: Apache-2.0
"""Errors at each of qcow2's events: what QEMU's writes come to, ours come to as well."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from blockyard.errors import ImageIOError

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = [
    "l1_update",
    "l2_load",
    "l2_update",
    "l2_alloc_write",
    "write_aio",
    "read_aio",
    "refblock_load",
    "refblock_update_part",
    "refblock_alloc",
    "cluster_alloc",
    "cow_read",
    "cow_write",
    "flush_to_os",
    "flush_to_disk",
    "cluster_free",
]
LENGTH = 128 * 1024


def tool(name: str, variable: str) -> str:
    program = shutil.which(os.environ.get(variable, name))
    assert program, f"{name} is not installed"
    return program


def make(image: Path, first: bool) -> None:
    image.unlink(missing_ok=True)
    options = ["-q", "-f", "qcow2", "-o", "cluster_size=1024", str(image), "1G"]
    subprocess.run([tool("qemu-img", "BLOCKYARD_QEMU_IMG"), "create", *options], check=True)
    if first:
        command = [tool("qemu-io", "BLOCKYARD_QEMU_IO"), "-f", "qcow2", "-c", "write 0 512"]
        subprocess.run([*command, str(image)], check=True, capture_output=True)


def is_consistent(image: Path) -> bool:
    """Leaks are nothing wrong."""
    check = [tool("qemu-img", "BLOCKYARD_QEMU_IMG"), "check", "-q", "-f", "qcow2", str(image)]
    return subprocess.run(check, check=False, capture_output=True).returncode in (0, 3)


def theirs(name: str) -> list[str]:
    """QEMU's outcome of a durable write, and of its close."""
    command = [tool("qemu-io", "BLOCKYARD_QEMU_IO"), "-t", "writethrough", "-f", "qcow2"]
    done = subprocess.run(
        [*command, "-c", f"write 0 {LENGTH}", name], capture_output=True, text=True, check=False
    )
    said = [line.removeprefix("qemu-io: ") for line in done.stderr.splitlines()]
    failed = [line for line in (done.stdout + done.stderr).splitlines() if "write failed" in line]
    return [*failed, *(line for line in said if line.startswith("Failed"))]


async def ours(yard: Any, name: str) -> list[str]:
    disk = await yard.open_named(name, "qcow2")
    try:
        await disk.write(0, b"x" * LENGTH)
        await disk.flush()
    except ImageIOError as error:
        return [f"write failed: {error}"]
    finally:
        await disk.close()
    return []


@pytest.mark.parametrize("once", ["on", "off"])
@pytest.mark.parametrize("event", EVENTS)
def test_a_write_fails_when_it_does_in_qemu(
    event: str, once: str, tmp_path: Path, in_yard: Any, caplog: Any
) -> None:
    config, image = tmp_path / "rules", tmp_path / "disk.qcow2"
    config.write_text(f'[inject-error]\nevent = "{event}"\nerrno = "28"\nonce = "{once}"\n')
    name = f"blkdebug:{config}:{image}"

    make(image, event in ("l2_update", "cow_write"))
    expected = theirs(name)
    make(image, event in ("l2_update", "cow_write"))
    found = in_yard(lambda yard: ours(yard, name))
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Failed")]

    assert found == [line for line in expected if line.startswith("write")]
    assert said == [line for line in expected if line.startswith("Failed")]
    assert is_consistent(image)
