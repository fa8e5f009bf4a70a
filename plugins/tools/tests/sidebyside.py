# SPDX-License-Identifier: Apache-2.0
"""Command lines, run by qemu-img and by ours in two folders that began alike."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import attrs

from blockyard_tools.error import ProgramError

#: What cannot be the same in both: dates, names drawn at random, made-up node names.
_VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "DATE"),
    (re.compile(r'("date-n?sec"): \d+'), r"\1: N"),
    (re.compile(r"(uuid: |\"uuid\": \")[-0-9a-f]{36}"), r"\1UUID"),
    (re.compile(r"(iters: |\"(?:master-key-)?iters\": )\d+"), r"\1N"),
    (re.compile(r"#block\d+"), "#blockN"),
)


@attrs.frozen
class Outcome:
    """What a program printed, and its status."""

    output: str
    errors: str
    status: int


def ours(folder: Path, words: list[str]) -> Outcome:
    """Run ``blockyard-img`` in this process."""
    from blockyard_tools.img.main import main

    out, errors = StringIO(), StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with redirect_stdout(out), redirect_stderr(errors):
            try:
                status = main(words)
            except ProgramError as error:
                status = error.report()
    finally:
        os.chdir(before)
    return Outcome(_same(out.getvalue()), _same(errors.getvalue()), status)


def theirs(folder: Path, words: list[str]) -> Outcome:
    """Run qemu-img."""
    done = subprocess.run(["qemu-img", *words], cwd=folder, capture_output=True, check=False)
    return Outcome(_same(done.stdout.decode()), _same(done.stderr.decode()), done.returncode)


def _same(text: str) -> str:
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text


def differences(
    tmp_path: Path, prepare: Callable[[Path], None], lines: Iterable[str]
) -> list[tuple[str, Outcome, Outcome]]:
    """The lines for which the two do not do the same, with qemu-img's outcome first.

    ``prepare`` fills a folder.  The lines run one after the other: what one leaves, the
    next ones find.  A line that begins with ``!`` is a shell's, and runs in both.
    """
    folders = [tmp_path / "theirs", tmp_path / "ours"]
    for folder in folders:
        folder.mkdir()
        prepare(folder)
    found = []
    for line in lines:
        if line.startswith("!"):
            for folder in folders:
                subprocess.run(["sh", "-ec", line[1:]], cwd=folder, check=True)
            continue
        words = shlex.split(line)
        one, other = theirs(folders[0], words), ours(folders[1], words)
        if one != other:
            found.append((line, one, other))
    return found


def shown(found: list[tuple[str, Outcome, Outcome]]) -> str:
    """The differences, for a failed test."""
    return "\n".join(
        f"{line}\n  qemu-img: {one!r}\n  ours:     {other!r}" for line, one, other in found
    )


def table(name: str) -> list[str]:
    """The command lines of ``tables/NAME.txt``; lines that begin with # are comments."""
    text = (Path(__file__).parent / "tables" / f"{name}.txt").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


if __name__ == "__main__":
    sys.exit("a module for tests")
