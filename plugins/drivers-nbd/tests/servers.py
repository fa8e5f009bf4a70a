# SPDX-License-Identifier: Apache-2.0
"""NBD servers of several makes, started and ended by tests.

Each start returns when the server listens, because all of these programs go into the
background only then.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

OURS = str(Path(sys.executable).parent / "blockyard-daemon")
_running = []


class Server:
    """A server on the unix socket ``path``."""

    def __init__(self, words, path, pidfile):
        self.words = [str(word) for word in words]
        self.path = str(path)
        self.pidfile = pidfile
        self.pid = 0
        _running.append(self)
        self.start()

    def start(self):
        """Start it, again too."""
        Path(self.path).unlink(missing_ok=True)
        self.pidfile.unlink(missing_ok=True)
        done = subprocess.run(self.words, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        # nbdkit writes it a moment later.
        wait_until(lambda: self.pidfile.exists() and self.pidfile.read_text().endswith("\n"))
        self.pid = int(self.pidfile.read_text())

    def kill(self, number=signal.SIGKILL):
        """End it as a crash would, and wait until it is gone."""
        if not self.pid:
            return
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self.pid = 0
            return
        try:
            os.kill(self.pid, number)
            # A pidfd becomes readable when its process ends.
            import select

            select.select([fd], [], [], 30)
        except ProcessLookupError:
            pass
        finally:
            os.close(fd)
        self.pid = 0

    def options(self, **more):
        """What blockdev-add takes for its disk."""
        return {"driver": "nbd", "server": {"type": "unix", "path": self.path}, **more}


def end_all():
    """End every server; the last one first."""
    while _running:
        _running.pop().kill(signal.SIGTERM if not sys.gettrace() else signal.SIGKILL)


def image(folder, size, name="disk.img"):
    """A raw image of zeroes."""
    path = folder / name
    path.touch()
    os.truncate(path, size)
    return path


def qemu_nbd(folder, file, *words, fmt="raw"):
    """QEMU's server of one image."""
    path, pid = folder / "qemu-nbd.sock", folder / "qemu-nbd.pid"
    line = ["qemu-nbd", "--fork", "-t", "-e", "8", "-k", path, "--pid-file", pid, "-f", fmt]
    return Server([*line, *words, file], path, pid)


def nbdkit(folder, *words):
    """nbdkit with a plugin and filters; without a pidfile in the way of ``words``."""
    path, pid = folder / "nbdkit.sock", folder / "nbdkit.pid"
    return Server(["nbdkit", "-U", path, "-P", pid, *words], path, pid)


def daemon(folder, program, *words, export="id=e,node-name=disk,name=,writable=on"):
    """A storage daemon, QEMU's or ours, that exports a node."""
    path, pid = folder / "daemon.sock", folder / "daemon.pid"
    line = [program, *words, "--nbd-server", f"addr.type=unix,addr.path={path}"]
    line += ["--export", f"type=nbd,{export}", "--daemonize", "--pidfile", pid]
    return Server(line, path, pid)


def storage_daemon(folder, *words, **more):
    """QEMU's."""
    return daemon(folder, "qemu-storage-daemon", *words, **more)


def blockyard(folder, *words, **more):
    """Ours."""
    return daemon(folder, OURS, *words, **more)


def wait_until(true, seconds=30):
    """Wait for something that tells nobody, and is asked about seldom."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)
