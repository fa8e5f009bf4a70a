# SPDX-License-Identifier: Apache-2.0
"""Runs of ``blockyard io`` and of qemu-io that can be compared."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["OURS", "THEIRS", "Ran", "run", "scripted"]

OURS = (sys.executable, "-c", "from blockyard_tools.programs import io; raise SystemExit(io())")
THEIRS = ("qemu-io",)

_RATE = re.compile(r"ops; .*? \(.*? and .*?\)")
_MACHINE = re.compile(r"(\d+,\d+),[\d:]+\.\d\d,[\d.]+,[\d.]+$", re.MULTILINE)
_NODE = re.compile(r"#block\d+")


class Ran(NamedTuple):
    """What came out; times and speeds left out."""

    out: str
    err: str
    status: int


def run(
    program: Sequence[str], words: Sequence[str], folder: Path, stdin: str | None = None
) -> Ran:
    """Run one program in a folder."""
    done = subprocess.run(
        [*program, *words],
        cwd=folder,
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=60,
        check=False,
    )
    return Ran(_plain(done.stdout), _plain(done.stderr), done.returncode)


def scripted(
    program: Sequence[str], words: Sequence[str], lines: Sequence[str], folder: Path
) -> Ran:
    """Run one program that reads its commands from standard input."""
    return run(program, words, folder, stdin="".join(f"{line}\n" for line in lines))


def _plain(text: str) -> str:
    text = _RATE.sub("ops; TIME (RATES)", text)
    return _NODE.sub("#blockN", _MACHINE.sub(r"\1,TIME,RATE,RATE", text))
