# SPDX-License-Identifier: Apache-2.0
"""The file as programs see it."""

import fcntl
import mmap
import os
import select
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

KEEP, PUNCH, ZERO = 1, 2, 16
MIB = 1 << 20


@pytest.fixture
def disk(files):
    """A writable file of 4 MiB: 1 MiB of data, then a hole; an open descriptor."""
    files.data = os.urandom(MIB)
    files.add_disk(files.data, 4 * MIB, discard="unmap")
    files.path = files.export(writable=True)
    files.fd = os.open(files.path, os.O_RDWR)
    yield files
    os.close(files.fd)


def image(disk, offset, length):
    with disk.image.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def test_it_is_a_regular_file_of_the_node_s_length(disk):
    found = os.stat(disk.path)

    assert stat.S_ISREG(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert (found.st_size, found.st_nlink) == (4 * MIB, 1)
    assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
    assert found.st_blocks * 512 == os.stat(disk.image).st_blocks * 512
    assert found.st_blksize >= 4096


def test_what_it_occupies_follows_the_node(disk):
    for i in range(30):
        os.pwrite(disk.fd, b"x" * 65536, 2 * MIB + i * 65536)
        assert os.stat(disk.path).st_blocks == os.stat(disk.image).st_blocks
    disk.fallocate(disk.fd, PUNCH | KEEP, 0, MIB)
    assert os.stat(disk.path).st_blocks == os.stat(disk.image).st_blocks


def test_attributes_do_not_wait_for_the_control_thread_for_ever(disk):
    before = os.stat(disk.path).st_blocks
    os.pwrite(disk.fd, b"x" * 65536, 2 * MIB)
    # As when that thread opens a file through the mount.
    assert disk.portal.call(lambda: os.stat(disk.path)).st_blocks == before
    disk.until(lambda: os.stat(disk.path).st_blocks > before)


def test_reads_end_at_the_end(disk):
    assert os.pread(disk.fd, 2 * MIB, 0) == disk.data + bytes(MIB)
    assert os.pread(disk.fd, 100, 4 * MIB - 10) == bytes(10)
    assert os.pread(disk.fd, 100, 4 * MIB) == b""
    assert os.pread(disk.fd, 100, 1 << 62) == b""
    assert os.pread(disk.fd, 0, 0) == b""


@pytest.mark.parametrize("bytes_", [1, 80, 4095, 32 << 10, (32 << 10) + 1, 100000, MIB, 3 * MIB])
@pytest.mark.parametrize("offset", [0, 1, 4096, 65535])
def test_writes_reach_the_image(disk, bytes_, offset):
    data = os.urandom(bytes_)

    assert os.pwrite(disk.fd, data, offset) == bytes_
    assert os.pread(disk.fd, bytes_, offset) == data
    assert image(disk, offset, bytes_) == data


def test_direct_reads_and_writes(disk):
    memory = mmap.mmap(-1, 2 * MIB)
    memory[:] = b"d" * len(memory)
    fd = os.open(disk.path, os.O_RDWR | os.O_DIRECT)
    try:
        assert os.pwritev(fd, [memory], MIB) == 2 * MIB
        assert os.preadv(fd, [memory], 2 * MIB) == 2 * MIB
    finally:
        os.close(fd)
    assert memory[:] == b"d" * MIB + bytes(MIB)


def test_it_can_be_mapped(disk):
    with mmap.mmap(disk.fd, MIB) as shared:
        assert shared[:] == disk.data
        shared[5:9] = b"word"
        shared.flush()
    assert image(disk, 0, 12) == disk.data[:5] + b"word" + disk.data[9:12]


def test_what_others_write_is_read_at_once(disk):
    other = disk.export(name="other", writable=True)
    fd = os.open(other, os.O_RDWR)
    try:
        for i in range(50):
            os.pwrite(fd, bytes([i]) * 10, 4090)
            assert os.pread(disk.fd, 10, 4090) == bytes([i]) * 10
    finally:
        os.close(fd)


def test_many_requests_at_a_time(disk):
    def one(i):
        data = os.urandom(3000 + i * 13)
        os.pwrite(disk.fd, data, i * 8192)
        return os.pread(disk.fd, len(data), i * 8192) == data

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(one, range(400)))
    [queue] = disk.statistics()
    assert queue.in_flight == 0
    assert queue.held == 0


def test_holes_are_found(disk):
    for offset, data, hole in [(0, 0, MIB), (4096, 4096, MIB), (5, 5, MIB)]:
        assert os.lseek(disk.fd, offset, os.SEEK_DATA) == data
        assert os.lseek(disk.fd, offset, os.SEEK_HOLE) == hole
    assert os.lseek(disk.fd, 2 * MIB, os.SEEK_HOLE) == 2 * MIB
    assert disk.attempt(os.lseek, disk.fd, 2 * MIB, os.SEEK_DATA) == "ENXIO"
    assert disk.attempt(os.lseek, disk.fd, 5 * MIB, os.SEEK_HOLE) == "ENXIO"
    os.pwrite(disk.fd, b"x", 3 * MIB)
    assert os.lseek(disk.fd, 2 * MIB, os.SEEK_DATA) == 3 * MIB


def test_punching_makes_holes(disk):
    disk.fallocate(disk.fd, PUNCH | KEEP, 65536, 65536)

    assert os.pread(disk.fd, 65536, 65536) == bytes(65536)
    assert os.lseek(disk.fd, 0, os.SEEK_HOLE) == 65536
    assert os.stat(disk.image).st_blocks * 512 <= MIB - 65536


def test_zeroing_grows_unless_told_not_to(disk):
    disk.fallocate(disk.fd, ZERO | KEEP, 4 * MIB - 4096, 8192)
    assert os.fstat(disk.fd).st_size == 4 * MIB
    disk.fallocate(disk.fd, ZERO, 4 * MIB - 4096, 8192)
    assert os.fstat(disk.fd).st_size == 4 * MIB + 4096


def test_allocation_grows(disk):
    disk.fallocate(disk.fd, 0, 4 * MIB, MIB)

    assert os.fstat(disk.fd).st_size == 5 * MIB
    assert os.stat(disk.image).st_blocks * 512 >= 2 * MIB


def test_writes_do_not_grow_what_is_not_growable(disk):
    assert os.pwrite(disk.fd, b"x" * 100, 4 * MIB - 40) == 40
    assert disk.attempt(os.pwrite, disk.fd, b"x", 4 * MIB) == "EIO"
    assert os.fstat(disk.fd).st_size == 4 * MIB


def test_truncation_is_seen_everywhere(disk):
    for length in (8 * MIB, 1536, 0, 4096):
        os.ftruncate(disk.fd, length)
        assert os.stat(disk.path).st_size == length
        assert os.stat(disk.image).st_size == length
        nodes = disk.execute("query-named-block-nodes", flat=True)
        assert {node["image"]["virtual-size"] for node in nodes} == {length}


def test_a_resize_from_outside_is_seen_at_once(disk):
    disk.execute("block_resize", node_name="disk", size=2 * MIB)
    assert os.fstat(disk.fd).st_size == 2 * MIB
    assert os.pread(disk.fd, 10, 2 * MIB) == b""
    disk.execute("block_resize", node_name="disk", size=6 * MIB)
    assert os.fstat(disk.fd).st_size == 6 * MIB
    assert os.pread(disk.fd, 10, 5 * MIB) == bytes(10)


def test_growable(files):
    files.add_disk(b"a" * 1024)
    path = files.export(writable=True, growable=True)
    with path.open("r+b", buffering=0) as file:
        file.seek(10000)
        assert file.write(b"b" * 100) == 100
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        file.write(b"c")
    found = files.image.read_bytes()
    assert found[:1024] == b"a" * 1024
    assert found[1024:10100] == bytes(10000 - 1024) + b"b" * 100
    assert found[end : end + 1] == b"c"


def test_replacing_what_is_growable(files):
    files.add_disk(b"a" * 65536)
    path = files.export(writable=True, growable=True)
    path.write_bytes(b"b" * 1024)
    assert path.read_bytes() == files.image.read_bytes() == b"b" * 1024


def test_replacing_what_is_not_keeps_the_length(disk):
    disk.path.write_bytes(b"b" * 1024)
    assert disk.path.read_bytes() == b"b" * 1024 + disk.data[1024:] + bytes(3 * MIB)


def test_growing_writes_of_many_at_a_time_lose_nothing(files):
    files.add_disk()
    path = files.export(writable=True, growable=True)
    fd = os.open(path, os.O_RDWR)
    pieces = {i * 5000: os.urandom(5000) for i in range(200)}

    with ThreadPoolExecutor(16) as pool:
        written = pool.map(lambda at: os.pwrite(fd, pieces[at], at), sorted(pieces, reverse=True))
        assert set(written) == {5000}
    os.close(fd)

    content = path.read_bytes()
    assert all(content[at : at + 5000] == data for at, data in pieces.items())


def test_modes_and_owners(disk):
    for mode in (0, 0o400, 0o644, 0o777, 0o4755):
        os.chmod(disk.path, mode)
        assert stat.S_IMODE(os.stat(disk.path).st_mode) == mode
    os.chown(disk.path, 1234, 5678)
    found = os.stat(disk.path)
    assert (found.st_uid, found.st_gid) == (1234, 5678)
    assert disk.attempt(os.utime, disk.path, (1, 1)) == "ENOTSUP"


def test_others_get_no_rights_without_allow_other(files):
    files.add_disk(b"a" * 4096)
    path = files.export(allow_other="off", writable=True)

    assert "allow_other" not in files.mounted(path)[0]
    assert files.attempt(os.chmod, path, 0o640) == "EPERM"
    assert files.attempt(os.chmod, path, 0o604) == "EPERM"
    assert files.attempt(os.chown, path, 1, 1) == "ENOTSUP"
    os.chmod(path, 0o700)
    if os.getuid() == 0:
        words = ["setpriv", "--reuid=12345", "--clear-groups", "cat", path]
        done = subprocess.run(words, capture_output=True, text=True)
        assert "Permission denied" in done.stderr


def test_with_allow_other_modes_decide(files, run):
    files.add_disk(b"a" * 4096)
    path = files.export(allow_other="on", writable=True)
    assert "allow_other" in files.mounted(path)[0]
    if os.getuid() == 0:
        folder = path.parent
        while folder != folder.parent and not folder.stat().st_mode & 1:
            folder.chmod(folder.stat().st_mode | 0o11)
            folder = folder.parent
        command = ["setpriv", "--reuid=12345", "--clear-groups", "cat", str(path)]
        assert subprocess.run(command, capture_output=True).returncode != 0
        os.chmod(path, 0o644)
        assert run(*command) == "a" * 4096


def test_read_only(files):
    files.add_disk(b"a" * 4096)
    path = files.export()

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o400
    assert path.read_bytes() == b"a" * 4096
    assert files.attempt(os.open, path, os.O_RDWR) == "EROFS"
    assert files.attempt(os.truncate, path, 0) == "EROFS"
    assert files.attempt(os.chmod, path, 0o600) == "EROFS"


def test_a_read_only_node(files):
    files.add_disk(b"a" * 4096, read_only=True)

    assert files.export().read_bytes() == b"a" * 4096


def test_nobody_waits_for_us_to_poll(disk):
    """Were it asked by the ring of a loop, that loop could not answer."""
    [before] = disk.statistics()
    poll = select.poll()
    poll.register(disk.fd)
    assert poll.poll(0) == [(disk.fd, select.POLLIN | select.POLLOUT)]
    assert disk.statistics()[0].requests == before.requests


def test_reading_flushes_nothing(disk):
    fd = os.open(disk.path, os.O_RDONLY)
    [before] = disk.statistics()
    os.close(os.dup(fd))
    os.close(fd)
    assert disk.statistics()[0].requests - before.requests <= 1  # RELEASE, some time


def test_locks_are_the_kernel_s(disk):
    fcntl.lockf(disk.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(disk.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    code = (
        f"import fcntl; fcntl.lockf(open({str(disk.path)!r}, 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    )
    done = subprocess.run(["python3", "-c", code], capture_output=True, text=True)
    assert "BlockingIOError" in done.stderr


def test_what_a_file_on_its_own_cannot(disk):
    attempt, path = disk.attempt, disk.path
    assert attempt(os.unlink, path) == "EBUSY"
    assert attempt(os.rename, path, f"{path}x") == "EBUSY"
    assert attempt(os.link, path, f"{path}x") == "EXDEV"
    assert attempt(os.getxattr, path, "user.x") == "ENOTSUP"
    assert attempt(os.setxattr, path, "user.x", b"1") == "ENOTSUP"
    assert attempt(fcntl.ioctl, disk.fd, 0x5401, bytes(64)) == "ENOTTY"
    assert os.statvfs(path).f_namemax == 255


def test_a_failing_disk_fails_the_call(files):
    files.add_disk(b"a" * 65536)
    rules = [{"event": "none", "iotype": "read", "errno": 5, "sector": 8, "once": False}]
    files.execute(
        "blockdev-add", driver="blkdebug", image="disk", node_name="bad", inject_error=rules
    )
    path = files.export("bad", writable=True)
    with path.open("rb", buffering=0) as file:
        assert file.read(4096) == b"a" * 4096
        assert files.attempt(file.read, 4096) == "EIO"
        file.seek(8192)
        assert file.read(4096) == b"a" * 4096
