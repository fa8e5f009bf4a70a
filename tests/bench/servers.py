# SPDX-License-Identifier: Apache-2.0
"""Starting a daemon under test, and what the kernel knows about it."""

import os
import re
import shlex
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

START_LIMIT = 20.0
ALIKE = (
    " --blockdev {node} --nbd-server addr.type=unix,addr.path={socket}"
    " --export type=nbd,id=bench,node-name=disk,writable=on,name=bench"
)


@dataclass(frozen=True)
class Server:
    """A daemon by name and command line.

    A command without ``{socket}`` is taken to be a program with
    qemu-storage-daemon's options, which are then added.  ``aio`` is the file
    driver's option in the cases with O_DIRECT; empty leaves it as it comes.
    """

    name: str
    command: str
    aio: str = ""

    @classmethod
    def parse(cls, text: str) -> "Server":
        """``NAME[,aio=HOW]=COMMAND``; raises ValueError when it is not that."""
        match = re.fullmatch(r"([\w.+-]+)(?:,aio=(\w+))?=(.+)", text, re.DOTALL)
        if not match:
            raise ValueError(f"'{text}' is not NAME=COMMAND")
        return cls(match[1], match[3], match[2] or "")

    def words(self, node: str, image: Path, path: Path) -> list[str]:
        """The command line for one run."""
        template = self.command if "{socket}" in self.command else self.command + ALIKE
        values = {
            "node": node.format(image=image, aio=self.aio and f",file.aio={self.aio}"),
            "image": str(image),
            "socket": str(path),
        }
        return [word.format(**values) for word in shlex.split(template)]


def default_servers() -> list[Server]:
    """Blockyard and the peer on PATH."""
    peer = os.environ.get("BLOCKYARD_QSD", "qemu-storage-daemon")
    return [Server("blockyard", "blockyard-daemon"), Server("qemu", peer)]


@dataclass
class Running:
    """A started daemon; leave the ``with`` block to end it."""

    server: Server
    node: str
    image: Path
    path: Path
    log: Path
    startup: float = 0.0
    process: "subprocess.Popen[bytes]" = field(init=False)

    def prepare(self) -> None:
        """See that ``path`` is what the server expects there."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.prepare()
        words = self.server.words(self.node, self.image, self.path)
        began = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.wait_greeting(began + START_LIMIT)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        self.startup = time.perf_counter() - began
        return self

    def wait_greeting(self, deadline: float) -> None:
        """Until the server greets a client; RuntimeError with its output when it does not."""
        while time.perf_counter() < deadline and self.process.poll() is None:
            if self.greets():
                return
            time.sleep(0.001)
        words = " ".join(self.process.args)  # type: ignore[arg-type]
        output = self.log.read_text(errors="replace").strip()
        raise RuntimeError(f"{self.server.name} did not start: {words}\n{output}")

    def greets(self) -> bool:
        """Whether a connection is answered with NBD's magic."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(str(self.path))
                return client.recv(8) == b"NBDMAGIC"
            except OSError:
                return False

    @property
    def uri(self) -> str:
        """Where clients find the export."""
        return f"nbd+unix:///bench?socket={self.path}"

    def cpu(self) -> float:
        """User and system time so far, in seconds, of all threads."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> tuple[int, int]:
        """Resident bytes: all of them, and those that are the process's own."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        kib = {
            k: int(v.split()[0])
            for k, _, v in (x.partition(":") for x in status.splitlines())
            if k in ("VmRSS", "RssAnon")
        }
        return kib["VmRSS"] * 1024, kib["RssAnon"] * 1024

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.path.unlink(missing_ok=True)
