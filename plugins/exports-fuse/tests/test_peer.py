# SPDX-License-Identifier: Apache-2.0
"""The same calls on the file of a real qemu-storage-daemon have the same results."""

import fcntl
import json
import mmap
import os
import random
import shutil
import socket
import subprocess

import pytest

QSD = os.environ.get("BLOCKYARD_QSD") or shutil.which("qemu-storage-daemon")
MODES = {
    "allocate": 0,
    "allocate and keep": 1,
    "punch": 2 | 1,
    "punch only": 2,
    "collapse": 8,
    "zero": 16,
    "zero and keep": 16 | 1,
    "insert": 32,
    "unshare": 64,
}


class Theirs:
    """A real daemon with the nodes ``file`` and ``disk``."""

    def __init__(self, folder, until):
        self.image = folder / "theirs.img"
        self.path = folder / "theirs"
        self.sock = folder / "qmp"
        self.until = until

    def start(self, content, **options):
        self.image.write_bytes(content)
        self.path.write_bytes(b"below")
        words = [
            QSD, "--chardev", f"socket,path={self.sock},server=on,wait=off,id=c",
            "--monitor", "chardev=c",
            "--blockdev", f"file,filename={self.image},node-name=file,discard=unmap",
            "--blockdev", "raw,file=file,node-name=disk,discard=unmap",
        ]  # fmt: skip
        self.process = subprocess.Popen(words)
        self.socket = socket.socket(socket.AF_UNIX)
        self.until(self.connected)
        self.lines = self.socket.makefile("rw")
        self.lines.readline()
        self.execute("qmp_capabilities")
        arguments = {"type": "fuse", "id": "e", "node-name": "disk", "mountpoint": str(self.path)}
        arguments |= {key.replace("_", "-"): value for key, value in options.items()}
        assert "return" in self.execute("block-export-add", **arguments)
        return self.path

    def connected(self):
        try:
            self.socket.connect(str(self.sock))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def execute(self, command, **arguments):
        self.lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.lines.flush()
        while True:
            answer = json.loads(self.lines.readline())
            if "event" not in answer:
                return answer

    def stop(self):
        self.execute("quit")
        self.process.wait(20)
        self.lines.close()
        self.socket.close()


@pytest.fixture
def theirs(may_mount, tmp_path, until):
    if QSD is None:
        pytest.skip("no qemu-storage-daemon here")
    peer = Theirs(tmp_path, until)
    yield peer
    peer.stop()


def both(files, theirs, calls, size=65536 + 100, **options):
    """Run ``calls(path)`` on both; the results."""
    content = random.Random(5).randbytes(size)
    files.add_disk(content, discard="unmap")
    mine = list(calls(files.export(writable=True, **options)))
    other = list(calls(theirs.start(content, writable=True, **options)))
    assert mine == other
    files.delete()
    theirs.execute("block-export-del", id="e")
    assert files.image.read_bytes() == theirs.image.read_bytes()
    return mine


@pytest.mark.parametrize("growable", [False, True])
@pytest.mark.parametrize("size", [65536, 65536 + 100])
def test_reads_and_writes(files, theirs, growable, size):
    def calls(path):
        fd = os.open(path, os.O_RDWR)
        end = os.fstat(fd).st_size
        yield "size", end
        for offset in (0, end - 50, end, end + 10, 1 << 62):
            yield "read", offset, files.attempt(os.pread, fd, 200, offset)
        for offset in (5, end - 50, end + 1000, (1 << 63) - 4096):
            data = bytes([offset & 255]) * 100
            # QEMU 11.1 writes nothing, which some programs then try for ever.
            yield "write", offset, files.attempt(os.pwrite, fd, data, offset) or "EIO"
            yield "size", os.fstat(fd).st_size
        yield "flush", files.attempt(os.fsync, fd), files.attempt(os.fdatasync, fd)
        os.close(fd)

    both(files, theirs, calls, size, growable=growable)


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("size", [65536, 65536 + 100])
def test_allocation(files, theirs, name, size):
    def calls(path):
        fd = os.open(path, os.O_RDWR)
        for offset, length in [(4096, 4096), (5000, 10), (-100, 4096), (0, 100), (5000, 4096)]:
            end = os.fstat(fd).st_size
            at = offset if offset > 1000 else end + offset
            yield at, files.attempt(files.fallocate, fd, MODES[name], at, length)
            yield os.fstat(fd).st_size
        end = os.fstat(fd).st_size
        yield "past", files.attempt(files.fallocate, fd, MODES[name], end + 5000, 4096)
        yield "all", files.attempt(files.fallocate, fd, MODES[name], 0, end)
        if "punch" in name:
            yield "far", files.attempt(files.fallocate, fd, MODES[name], 1 << 40, 1 << 40)
        yield os.fstat(fd).st_size
        yield os.pread(fd, 1 << 20, 0)
        os.close(fd)

    both(files, theirs, calls, size)


def test_lengths(files, theirs):
    def calls(path):
        fd = os.open(path, os.O_RDWR)
        for length in (200000, 1000, 0, 4096):
            yield length, files.attempt(os.ftruncate, fd, length), os.fstat(fd).st_size
        yield files.attempt(os.truncate, path, 3000), os.fstat(fd).st_size
        os.close(fd)
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
        yield os.stat(path).st_size

    both(files, theirs, calls)


def test_holes(files, theirs):
    def calls(path):
        fd = os.open(path, os.O_RDWR)
        files.fallocate(fd, 3, 8192, 4096)
        files.fallocate(fd, 3, 32768, 16384)
        end = os.fstat(fd).st_size
        for offset in (0, 4096, 8192, 9000, 12288, 40000, 49152, 65000, end - 1, end, end + 10):
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                yield offset, whence, files.attempt(os.lseek, fd, offset, whence)
        os.ftruncate(fd, 0)
        yield files.attempt(os.lseek, fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE)
        os.close(fd)

    both(files, theirs, calls, 65536)


@pytest.mark.parametrize("allow_other", ["on", "off"])
def test_attributes(files, theirs, allow_other):
    def calls(path):
        for mode in (0o000, 0o500, 0o600, 0o644, 0o777, 0o4700):
            yield files.attempt(os.chmod, path, mode), os.stat(path).st_mode
        yield files.attempt(os.chown, path, 1000, -1), files.attempt(os.chown, path, -1, 1000)
        found = os.stat(path)
        yield found.st_uid, found.st_gid, found.st_nlink, found.st_ino, found.st_blocks
        yield files.attempt(os.utime, path, (1, 1)), files.attempt(os.utime, path)

    both(files, theirs, calls, allow_other=allow_other)


def test_all_else(files, theirs):
    def calls(path):
        fd = os.open(path, os.O_RDWR)
        yield files.attempt(os.unlink, path), files.attempt(os.rename, path, f"{path}x")
        yield files.attempt(os.link, path, f"{path}x"), files.attempt(os.listdir, path)
        yield files.attempt(os.getxattr, path, "user.x")
        yield files.attempt(os.setxattr, path, "user.x", b"1")
        yield files.attempt(os.listxattr, path), os.access(path, os.X_OK)
        yield files.attempt(fcntl.ioctl, fd, 0x5401, bytes(64))
        yield files.attempt(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.statvfs(path)
        yield found.f_bsize, found.f_blocks, found.f_bavail, found.f_namemax
        direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
        yield os.preadv(direct, [mmap.mmap(-1, 4096)], 0)
        os.close(direct)
        os.close(fd)

    both(files, theirs, calls)
