# SPDX-License-Identifier: Apache-2.0
"""Programs say of NBD disks what QEMU's programs say, hints included."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

IMG = str(Path(sys.executable).parent / "blockyard-img")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """A server with an export called ``disk``, until its pid is no longer needed."""
    image, path, pid = (tmp_path / name for name in ("disk.img", "socket", "pid"))
    image.write_bytes(bytes(1 << 20))
    words = ["qemu-nbd", "--fork", "-t", "-r", "-x", "disk", "-f", "raw"]
    subprocess.check_call([*words, "-k", path, "--pid-file", pid, image])
    yield path
    os.kill(int(pid.read_text()), signal.SIGTERM)


@pytest.mark.parametrize("export", ["disk", "other"])
def test_info_says_what_qemu_img_says(server: Path, export: str) -> None:
    words = ["info", "-f", "raw", f"nbd+unix:///{export}?socket={server}"]
    ours = subprocess.run([IMG, *words], capture_output=True, text=True)
    theirs = subprocess.run(["qemu-img", *words], capture_output=True, text=True)
    assert (ours.returncode, ours.stderr) == (theirs.returncode, theirs.stderr)
    assert ours.stdout == theirs.stdout
