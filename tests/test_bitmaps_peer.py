# SPDX-License-Identifier: Apache-2.0
"""What requests make dirty, in Blockyard's daemon and in QEMU's: the same bits.

Both get the same requests over NBD from one client, with bitmaps of several granularities
that are disabled, cleared and merged in between.
"""

import json
import os
import random
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

SIZE = (4 << 20) + 1536
GRAINS = {"fine": 512, "page": 4096, "rough": 1 << 20}


def qemu(name, variable):
    path = os.environ.get(variable) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


class Daemon:
    """A daemon with a disk, its bitmaps and an NBD server, by QMP on its standard input."""

    def __init__(self, program, folder):
        folder.mkdir()
        with open(folder / "disk", "wb") as file:
            file.truncate(SIZE)
        words = [program, "--chardev", "stdio,id=m", "--monitor", "chardev=m"]
        self.process = subprocess.Popen(
            words, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.process.stdout.readline()
        self.socket = folder / "nbd.sock"

    def __call__(self, name, /, **arguments):
        dashed = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.process.stdin.write(json.dumps({"execute": name, "arguments": dashed}) + "\n")
        self.process.stdin.flush()
        while "event" in (reply := json.loads(self.process.stdout.readline())):
            pass
        return reply.get("return", reply.get("error"))

    def bitmaps(self):
        found = next(
            node["dirty-bitmaps"]
            for node in self("query-named-block-nodes", flat=True)
            if node["node-name"] == "top"
        )
        digests = [self("x-debug-block-dirty-bitmap-sha256", node="top", name=n) for n in GRAINS]
        return found, digests

    def close(self):
        self("quit")
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


def setting_up():
    yield "qmp_capabilities", {}
    file = {"driver": "file", "filename": "disk", "discard": "unmap"}
    yield "blockdev-add", {"driver": "raw", "node-name": "top", "file": file, "discard": "unmap"}
    for name, granularity in GRAINS.items():
        arguments = {"node": "top", "name": name, "granularity": granularity}
        yield "block-dirty-bitmap-add", arguments
    yield "nbd-server-start", {"addr": {"type": "unix", "data": {"path": "nbd.sock"}}}
    yield (
        "block-export-add",
        {"type": "nbd", "id": "e", "node-name": "top", "name": "disk", "writable": True},
    )


def requests(rng):
    """Commands of qemu-io that change the disk, or do not."""
    for _ in range(rng.randrange(1, 12)):
        at = rng.randrange(SIZE)
        if rng.random() < 0.5:
            at -= at % 4096
        length = min(rng.choice([1, 300, 512, 4096, 70000, 1 << 20]), SIZE - at)
        yield rng.choice(
            [
                f"write -P {rng.randrange(256)} {at} {length}",
                f"write -z {at} {length}",
                f"write -z -u {at} {length}",
                f"discard {at} {length}",
                f"read {at} {length}",
                "flush",
            ]
        )


def change(rng):
    """A command that changes the bitmaps."""
    name, other = rng.sample(list(GRAINS), 2)
    kind = rng.choice(["clear", "enable", "enable", "disable", "merge"])
    if kind == "merge":
        return "block-dirty-bitmap-merge", {"node": "top", "target": name, "bitmaps": [other]}
    return f"block-dirty-bitmap-{kind}", {"node": "top", "name": name}


@pytest.mark.parametrize("seed", range(4))
def test_the_same_requests_set_the_same_bits(seed, tmp_path):
    rng = random.Random(seed)
    client = qemu("qemu-io", "BLOCKYARD_QEMU_IO")
    mine = Daemon(Path(sysconfig.get_path("scripts")) / "blockyard-daemon", tmp_path / "mine")
    theirs = Daemon(qemu("qemu-storage-daemon", "BLOCKYARD_QSD"), tmp_path / "theirs")
    both = (mine, theirs)
    try:
        for daemon in both:
            for name, arguments in setting_up():
                assert daemon(name, **arguments) == {}
        for _ in range(8):
            commands = [word for each in requests(rng) for word in ("-c", each)]
            for daemon in both:
                uri = f"nbd+unix:///disk?socket={daemon.socket}"
                words = [client, "-f", "raw", "-d", "unmap", *commands, uri]
                done = subprocess.run(words, capture_output=True, text=True, timeout=60)
                assert "failed" not in done.stdout + done.stderr
            assert mine.bitmaps() == theirs.bitmaps(), commands
            name, arguments = change(rng)
            assert mine(name, **arguments) == theirs(name, **arguments) == {}
            assert mine.bitmaps() == theirs.bitmaps(), (name, arguments)
    finally:
        for daemon in both:
            daemon.close()
