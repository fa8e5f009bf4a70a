# SPDX-License-Identifier: Apache-2.0
"""What the tools of QEMU 11.1 take and those of Debian's QEMU do not: the texts are 11.1's."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def tool(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``blockyard NAME WORDS``."""
    return subprocess.run(
        [sys.executable, "-m", "blockyard.cli.main", name, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """``a.qcow2`` with the bitmaps a and b."""
    assert tool(tmp_path, "img", "create", "-q", "-f", "qcow2", "a.qcow2", "1M").returncode == 0
    for name in ("a", "b"):
        assert tool(tmp_path, "img", "bitmap", "--add", "a.qcow2", name).returncode == 0
    return tmp_path / "a.qcow2"


def bitmaps(image: Path) -> list[str]:
    """The names of the bitmaps that the image has."""
    done = tool(image.parent, "img", "info", "--output", "json", image.name)
    data = json.loads(done.stdout)["format-specific"]["data"]
    return [each["name"] for each in data.get("bitmaps", [])]


def test_all_bitmaps_are_removed(image: Path) -> None:
    assert bitmaps(image) == ["a", "b"]
    done = tool(image.parent, "img", "bitmap", "--remove-all", image.name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert bitmaps(image) == []


def test_all_are_removed_in_turn_with_the_others(image: Path) -> None:
    done = tool(image.parent, "img", "bitmap", "--remove-all", "--add", image.name, "c")
    assert (done.returncode, done.stderr) == (0, "")
    assert bitmaps(image) == ["c"]
    tool(image.parent, "img", "bitmap", "--add", "--remove-all", image.name, "d")
    assert bitmaps(image) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--remove-all", "a.qcow2", "a"], "Expecting filename"),
        (["--remove-all", "--remove", "a.qcow2"], "Expecting filename and bitmap name"),
        (["--remove-all"], "Expecting filename"),
        (["--remove-all", "-g", "64k", "a.qcow2"], "granularity only supported with --add"),
        (
            ["a.qcow2", "a"],
            (
                "Need at least one of --add, --remove, --remove-all, --clear, --enable, "
                "--disable, or --merge"
            ),
        ),
    ],
)
def test_what_makes_no_sense_is_refused(image: Path, words: list[str], text: str) -> None:
    done = tool(image.parent, "img", "bitmap", *words)
    assert (done.returncode, done.stderr) == (1, f"qemu-img: {text}\n")
    assert bitmaps(image) == ["a", "b"]


def test_a_range_is_given_up_beside_other_commands(image: Path) -> None:
    done = tool(
        image.parent, "io",
        *("-c", "write -P 1 0 128k", "-c", "aio_discard -q 0 64k", "-c", "aio_flush"),
        *("-c", "read -P 0 0 64k", "-c", "read -P 1 64k 64k"),
        *("-c", "aio_discard 64k 64k", "-c", "aio_flush", "-c", "aio_discard 2M 4k"),
        *("-c", "aio_flush", "-c", "aio_discard 0", "-c", "aio_discard -P 1 0 4k"),
        image.name,
    )  # fmt: skip
    assert "Pattern verification failed" not in done.stdout
    assert "discarded  65536/65536 bytes at offset 65536\n" in done.stdout
    assert "aio_discard failed: Input/output error\n" in done.stdout
    assert done.stderr == (
        "bad argument count 1 to aio_discard, expected at least 2 arguments\n"
        "aio_discard: invalid option -- 'P'\n"
    )
