# SPDX-License-Identifier: Apache-2.0
"""A daemon that is given hostile images while it serves somebody else."""

import json
import os
import resource
import selectors
import subprocess
import sysconfig
import time
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
ADDRESS_SPACE, RESIDENT = 4 * GIB, 700 * MIB
PATIENCE = 60


class Daemon:
    """blockyard-daemon with a good disk on NBD, and little memory."""

    def __init__(self, folder, qemu_io):
        self.folder, self.qemu_io = folder, qemu_io
        (folder / "good.raw").write_bytes(b"\x11" * MIB)
        program = Path(sysconfig.get_path("scripts")) / "blockyard-daemon"
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [program, "--chardev", "stdio,id=c", "--monitor", "chardev=c"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, cwd=folder,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE,) * 2),
        )  # fmt: skip
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        self.buffer = b""
        self.events = []
        self.line()
        self.ask("qmp_capabilities")
        self.ask("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
        self.ask("object-add", **{"qom-type": "secret", "id": "s", "data": "abc"})
        self.ask("blockdev-add", **{"driver": "file", "node-name": "good", "filename": "good.raw"})
        self.ask("block-export-add", type="nbd", id="good", **{"node-name": "good"})

    def line(self):
        end = time.monotonic() + PATIENCE
        while b"\n" not in self.buffer:
            assert self.selector.select(end - time.monotonic()), "the daemon hangs"
            piece = os.read(self.process.stdout.fileno(), 1 << 16)
            assert piece, f"the daemon died: {self.process.wait()}"
            self.buffer += piece
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def ask(self, command, **arguments):
        """The answer, or the error's text."""
        words = {"execute": command, "arguments": arguments}
        self.process.stdin.write(json.dumps(words).encode() + b"\n")
        self.process.stdin.flush()
        while True:
            said = self.line()
            if "event" in said:
                self.events.append(said)
            elif "error" in said:
                return said["error"]["desc"]
            else:
                return said["return"]

    def at(self, export):
        return f"nbd+unix:///{export}?socket={self.folder}/nbd.sock"

    def use(self, path, **options):
        """Open an image, do everything to it, close it; the other client is served on."""
        file = {"driver": "file", "filename": str(path), "locking": "off"}
        named = {"driver": "qcow2", "node-name": "bad", "file": file, "discard": "unmap"}
        said = self.ask("blockdev-add", **named, **options)
        if said == {}:
            self._work()
        self.ask("blockdev-del", **{"node-name": "bad"})
        self.serves()
        return said

    def _work(self):
        export = {"type": "nbd", "id": "bad", "node-name": "bad", "writable": True}
        if self.ask("block-export-add", **export) == {}:
            self.qemu_io(
                self.at("bad"),
                "read 0 1M", "write -P 5 0 64k", "write 300k 200k", "write -z -u 100k 300k",
                "discard 500k 300k", "flush", "read 0 1M",
                options=["-f", "raw"], ok=False,
            )  # fmt: skip
            self.ask("block-export-del", id="bad", mode="hard")
            while any(each["id"] == "bad" for each in self.ask("query-block-exports")):
                time.sleep(0.01)
        self.ask("query-named-block-nodes", flat=False)
        self.ask("blockdev-snapshot-internal-sync", device="bad", name="x")
        self.ask("block-dirty-bitmap-add", node="bad", name="x", persistent=True)
        self.ask("block_resize", size=2 * MIB, **{"node-name": "bad"})
        self.ask("blockdev-snapshot-delete-internal-sync", device="bad", name="x")

    def serves(self):
        said = self.qemu_io(self.at("good"), "read -P 17 0 1M", options=["-r", "-f", "raw"])
        assert "failed" not in said
        assert self.ask("query-named-block-nodes")
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        highest = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        assert int(highest.split()[1]) * KIB < RESIDENT

    def end(self):
        try:
            self.ask("quit")
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.selector.close()
            self.log.seek(0)
            said = self.log.read()
            self.log.close()
        assert "Traceback" not in said, said
        assert self.process.returncode == 0, said
