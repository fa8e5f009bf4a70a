# SPDX-License-Identifier: Apache-2.0
"""Disks with logs, and what is done to them by us and by QEMU's driver."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20

#: What, the offset, the length, and the byte that is written.
Step = tuple[str, int, int, int]


def file(path: Path) -> dict[str, Any]:
    return {"driver": "file", "filename": str(path), "discard": "unmap"}


def logged(folder: Path, size: int = MIB, **options: Any) -> dict[str, Any]:
    """Options for a new disk and a new log."""
    for name, length in (("disk", size), ("log", 0)):
        (folder / name).touch()
        os.truncate(folder / name, length)
    return {
        "driver": "blklogwrites",
        "discard": "unmap",
        "file": file(folder / "disk"),
        "log": file(folder / "log"),
        **options,
    }


def _whole(offset: int, length: int) -> tuple[int, int]:
    """Whole blocks: ends that are none are split off in different ways."""
    return offset // 4096 * 4096, -(-length // 4096) * 4096


def command(step: Step) -> str:
    kind, offset, length, pattern = step
    if kind == "flush":
        return kind
    if kind == "write":
        kind = f"write -P {pattern}"
    else:
        offset, length = _whole(offset, length)
    return f"{kind} {offset} {length}"


async def carry_out(disk: Any, step: Step) -> None:
    kind, offset, length, pattern = step
    if kind == "flush":
        await disk.flush()
    elif kind == "write":
        await disk.write(offset, bytes([pattern]) * length)
    elif kind == "discard":
        await disk.discard(*_whole(offset, length))
    else:
        await disk.write_zeroes(*_whole(offset, length), may_unmap=kind.endswith("u"))


def qemu_io(program: str, folder: Path, steps: list[Step], **options: Any) -> str:
    """Run the steps on QEMU's driver; what it says when it cannot open."""
    opened = ["driver=blklogwrites"]
    opened += [f"{name}={value}" for name, value in options.items()]
    for child, name in (("file", "disk"), ("log", "log")):
        opened += [f"{child}.driver=file", f"{child}.filename={folder / name}"]
        opened.append(f"{child}.discard=unmap")
    words = [word for step in steps for word in ("-c", command(step))]
    done = subprocess.run(
        [program, "-t", "writeback", "--image-opts", ",".join(opened), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.stderr.strip().removeprefix("qemu-io: can't open: ")
