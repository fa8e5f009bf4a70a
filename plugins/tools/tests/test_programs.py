# SPDX-License-Identifier: Apache-2.0
"""How the console scripts treat the streams that they are started with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"a" * 65536)
    return path


def test_output_that_cannot_be_written_is_told(image: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [PROGRAMS / "blockyard-img", "info", "-f", "raw", image],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "qemu-img: No space left on device\n")


def test_a_reader_that_has_seen_enough_is_no_failure_to_tell(image: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [PROGRAMS / "blockyard-img", "info", "-f", "raw", image],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


def test_what_is_printed_ends_in_no_image(image: Path) -> None:
    words = f"'{PROGRAMS}/blockyard-io' -f raw -c 'read 0 512' -c nonsense '{image}'"
    status = subprocess.run(["sh", "-c", f"{words} <&- >&- 2>&-"]).returncode
    assert status == 1
    assert image.read_bytes() == b"a" * 65536
