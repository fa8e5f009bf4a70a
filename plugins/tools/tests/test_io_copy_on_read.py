# SPDX-License-Identifier: Apache-2.0
"""Images that io opens with -C keep what is read from their backing files."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from blockyard_tools.io.main import main

IMG = os.environ.get("BLOCKYARD_QEMU_IMG", "qemu-img")


def run(*words: object) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(("options", "copied"), [(["-C"], True), ([], False)])
def test_what_is_read_is_kept(tmp_path: Path, options: list[str], copied: bool) -> None:
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(b"x" * (1 << 20))
    run(IMG, "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top)
    words = ["-f", "qcow2", *options, "-c", "read -P 0x78 0 64k", str(top)]
    assert main(words) == 0
    first = json.loads(run(IMG, "map", "--output=json", top))[0]
    assert (first["depth"] == 0) is copied


def test_subclusters_are_kept_and_not_their_whole_cluster(tmp_path: Path) -> None:
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(b"x" * (64 << 10))
    run(IMG, "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", base, "-F", "raw", top)
    assert main(["-f", "qcow2", "-C", "-c", "read -P 0x78 31k 2k", str(top)]) == 0
    extents = json.loads(run(IMG, "map", "--output=json", top))
    assert [(e["start"], e["length"], e["depth"]) for e in extents] == [
        (0, 30 << 10, 1),
        (30 << 10, 4 << 10, 0),
        (34 << 10, 30 << 10, 1),
    ]
