# SPDX-License-Identifier: Apache-2.0
"""Checks of a file by ``native/check_image.c`` and by qemu-img, told in the same form."""

import json
import re
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

NUMBERS = [
    "corruptions", "leaks", "check-errors", "corruptions-fixed", "leaks-fixed",
    "image-end-offset", "total-clusters", "allocated-clusters", "fragmented-clusters",
    "compressed-clusters",
]  # fmt: skip
_LEAKED = "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix."
FIX = {None: 0, "leaks": 1, "all": 3}


@dataclass
class Checked:
    """What a check says: its numbers (None: it could not end), its lines."""

    numbers: dict[str, int] | None
    lines: list[str]

    @property
    def is_clean(self) -> bool:
        return self.numbers is not None and not any(self.numbers[name] for name in NUMBERS[:3])


def lines_of(text: str) -> list[str]:
    """Sentences about the image, without those of qemu-img and its block layer."""
    text = re.sub(f"warning: a program lacking.*?{_LEAKED}", "", text, flags=re.DOTALL)
    lines = [re.sub("^qemu-img: ", "", line) for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(("Check failed", "qcow2: "))]


def by_qemu(path: Path, fix: str | None) -> Checked:
    words = ["qemu-img", "check", "-f", "qcow2", "--output=json", str(path)]
    words[2:2] = ["-r", fix] if fix else []
    done = subprocess.run(
        words, capture_output=True, text=True, errors="replace", timeout=300, check=False
    )
    assert "Could not open" not in done.stderr, done.stderr
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return Checked(None, lines_of(done.stderr))
    return Checked({name: found.get(name, 0) for name in NUMBERS}, lines_of(done.stderr))


def once(program: Path, path: Path, fix: str | None, memory: int | None) -> Checked:
    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    done = subprocess.run(
        [program, path, str(FIX[fix])], capture_output=True, text=True, errors="replace",
        timeout=300, preexec_fn=bounded if memory else None, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr[-4000:]
    found = json.loads(done.stdout)
    numbers = {name: found[name] for name in NUMBERS} if found["result"] == 0 else None
    return Checked(numbers, lines_of(done.stderr))


def by_us(program: Path, path: Path, fix: str | None, memory: int | None = None) -> Checked:
    """Like qemu-img: once more when something was mended."""
    first = once(program, path, fix, memory)
    fixed = NUMBERS[3:5]
    if first.numbers is None or not any(first.numbers[name] for name in fixed):
        return first
    again = once(program, path, None, memory)
    if again.numbers is not None:
        again.numbers |= {name: first.numbers[name] for name in fixed}
    return Checked(again.numbers, first.lines + again.lines)


def both(program: Path, path: Path, fix: str | None) -> tuple[Checked, Checked]:
    """QEMU's check and ours, each of its own copy; ours is FILE.ours."""
    theirs, ours = path.with_suffix(".theirs"), path.with_suffix(".ours")
    shutil.copy(path, theirs)
    shutil.copy(path, ours)
    return by_qemu(theirs, fix), by_us(program, ours, fix)
