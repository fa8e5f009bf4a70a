# SPDX-License-Identifier: Apache-2.0
"""Programs killed while they write: the image is sound, and what was flushed is there.

Power cuts, which lose writes that were not flushed, are in test_power.py and test_tables.py.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from blockyard_formats_qcow2 import open_image

MIB = 1 << 20
SIZE, SECTOR = 3 * MIB, 512

#: Writes numbers, four bytes each, over whole ranges; after each flush it says up to
#: which write everything is stable.
WRITER = """
import random, struct, sys
from blockyard import open_blocking

path, seed = sys.argv[1], int(sys.argv[2])
chance = random.Random(seed)
options = {"driver": "qcow2", "discard": "unmap", "file": {"driver": "file", "filename": path}}
with open_blocking(options) as image:
    number = 0
    while True:
        for _ in range(chance.randrange(1, 9)):
            number += 1
            length = chance.choice([1, 3, 8, 128, 200, 700]) * 512
            offset = chance.randrange(0, (image.length - length) // 512) * 512
            kind = chance.choice(["write", "write", "write", "zeroes"])
            print("begin", number, kind, offset, length, flush=True)
            if kind == "write":
                image.write(offset, struct.pack(">I", number) * (length // 4))
            else:
                image.write_zeroes(offset, length, may_unmap=True)
        image.flush()
        print("stable", number, flush=True)
"""


def killed(path, seed, wait):
    """What the writer said before it was killed: its writes, and the last stable one."""
    command = [sys.executable, "-c", WRITER, str(path), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().decode()
    writes, stable = [], 0
    for line in said[: said.rindex("\n") + 1].splitlines() if "\n" in said else []:
        kind, *rest = line.split()
        if kind == "stable":
            stable = int(rest[0])
        else:
            writes.append((int(rest[0]), rest[1], int(rest[2]), int(rest[3])))
    return writes, stable


def let_go(path, qemu_img):
    """Wait until nobody has the image: the kernel ends a killed program's ring behind it."""
    deadline = time.monotonic() + 30
    while qemu_img("info", path, ok=False).returncode:
        assert time.monotonic() < deadline, "the image stays locked"
        time.sleep(0.05)


def acceptable(writes, stable):
    """For each sector the values that it may have: the last stable one, or a later one."""
    allowed = [{0} for _ in range(SIZE // SECTOR)]
    for number, kind, offset, length in writes:
        value = number if kind == "write" else 0
        for sector in range(offset // SECTOR, (offset + length) // SECTOR):
            if number <= stable:
                allowed[sector] = {value}
            else:
                allowed[sector].add(value)
    return allowed


@pytest.mark.parametrize(
    ("shape", "lazy"),
    [
        ("", False),
        ("cluster_size=4k,refcount_bits=64", False),
        ("extended_l2=on,cluster_size=16k", False),
        ("lazy_refcounts=on", True),
        ("compat=0.10,cluster_size=512", False),
    ],
)
def test_a_killed_program_leaves_a_sound_image(shape, lazy, tmp_path, qemu_img):
    chance = random.Random(shape)
    for seed in range(int(os.environ.get("BLOCKYARD_KILLS", "1"))):
        path = tmp_path / "a.qcow2"
        words = ["-o", shape] if shape else []
        qemu_img("create", "-q", "-f", "qcow2", *words, path, SIZE)
        # The first write is one of the writer's, and it is not known whether it was made.
        writes, stable = killed(path, seed, chance.uniform(0.01, 0.5))
        let_go(path, qemu_img)
        report = json.loads(qemu_img("check", "--output=json", path, ok=False).stdout)
        assert report["check-errors"] == 0
        if lazy:
            with open_image(path, writable=True):
                pass  # which repairs it
            assert "No errors" in qemu_img("check", path)
        else:
            assert report.get("corruptions", 0) == 0
        qemu_img("convert", "-O", "raw", path, tmp_path / "raw")
        data = (tmp_path / "raw").read_bytes()
        found = [
            {int.from_bytes(data[at + i : at + i + 4], "big") for i in range(0, SECTOR, 4)}
            for at in range(0, SIZE, SECTOR)
        ]
        bad = [
            sector
            for sector, allowed in enumerate(acceptable(writes, stable))
            if not found[sector] <= allowed | {1}
        ]
        assert bad == []
