# SPDX-License-Identifier: Apache-2.0
"""Mounting, unmounting, and what ends otherwise."""

import contextlib
import os
import signal
import subprocess
import sysconfig
import threading
from pathlib import Path

import pytest

DAEMON = Path(sysconfig.get_path("scripts"), "blockyard-daemon")


def gone(files):
    return [
        event["data"]["id"] for event in files.events if event["event"] == "BLOCK_EXPORT_DELETED"
    ]


def test_deletion_unmounts_and_shows_the_file_below(files):
    files.add_disk(b"a" * 4096)
    path = files.export()
    assert len(files.mounted(path)) == 1

    files.delete()
    assert not files.mounted(path)
    assert path.read_bytes() == b"below"
    assert gone(files) == ["mnt"]
    files.add(path)
    assert path.read_bytes() == b"a" * 4096


def test_deletion_does_not_wait_for_who_has_it_open(files):
    files.add_disk(b"a" * 4096)
    path = files.export()
    with path.open("rb", buffering=0) as file:
        files.delete()
        assert files.attempt(file.read, 10) == "ENOTCONN"
        assert path.read_bytes() == b"below"


def test_requests_under_way_are_answered_before_it_goes(files):
    files.add_disk(b"a" * 65536)
    files.execute("object-add", qom_type="throttle-group", id="slow", limits={"iops-total": 20})
    files.execute(
        "blockdev-add", driver="throttle", file="disk", node_name="slow", throttle_group="slow"
    )
    path = files.export("slow")
    fd = os.open(path, os.O_RDONLY)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(files.attempt(os.pread, fd, 4096, 0)))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    files.until(lambda: files.statistics()[0].in_flight >= 5)
    files.delete()
    for thread in threads:
        thread.join()
    os.close(fd)
    # Some of them may have come too late.
    assert set(answers) <= {b"a" * 4096, "ENOTCONN", "ECONNABORTED"}
    assert b"a" * 4096 in answers


def test_unmounting_from_outside_ends_the_export(files, run):
    files.add_disk(b"a" * 4096)
    path = files.export()

    run("umount", path)
    files.until(lambda: gone(files) == ["mnt"])
    assert not files.find()
    files.add(path)
    assert path.read_bytes() == b"a" * 4096


def test_unmounting_lazily_ends_the_export_with_its_last_user(files, run):
    files.add_disk(b"a" * 4096)
    path = files.export()
    with path.open("rb", buffering=0) as file:
        run("umount", "-l", path)
        assert file.read(10) == b"a" * 10
        assert files.find()
    files.until(lambda: gone(files) == ["mnt"])


def test_what_is_mounted_over_it_stays(files, run, caplog):
    files.add_disk(b"a" * 4096)
    path = files.export()
    over = files.folder / "over"
    over.write_bytes(b"over")
    run("mount", "--bind", over, path)
    try:
        files.delete()
        assert "covered by another mount" in caplog.text
        assert path.read_bytes() == b"over"
    finally:
        run("umount", path)
        run("umount", "-l", path)


def test_several_exports_of_a_node(files):
    files.add_disk(b"a" * 4096)
    paths = [files.export(name=f"mnt{i}", writable=i % 2 == 0) for i in range(8)]

    with paths[0].open("r+b") as file:
        file.write(b"b" * 4096)
    assert {path.read_bytes() for path in paths} == {b"b" * 4096}


def test_an_image_may_be_shown_in_its_own_place(files, run):
    path = files.folder / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    run("qemu-io", "-c", "write -P 7 0 64k", path)
    files.execute(
        "blockdev-add", driver="qcow2", node_name="q",
        file={"driver": "file", "filename": str(path)},
    )  # fmt: skip
    files.add(path, "q", writable=True)
    assert path.read_bytes() == bytes([7]) * 65536 + bytes((1 << 20) - 65536)
    with path.open("r+b") as file:
        file.write(b"written through")
    files.delete()
    files.execute("blockdev-del", node_name="q")
    run("qemu-img", "check", "-q", path)
    assert run("qemu-io", "-c", "read -v 0 16", path).startswith(
        "00000000:  77 72 69 74 74 65 6e 20 74"
    )


# -- threads


def test_it_moves_with_its_node(files):
    files.add_disk(b"a" * 65536)
    path = files.export(writable=True)
    files.execute("object-add", qom_type="iothread", id="t0")
    fd = os.open(path, os.O_RDWR)
    stop = threading.Event()
    answers = []

    def load():
        while not stop.is_set():
            answers.append(os.pread(fd, 4096, 8192))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for home in ["t0", None] * 10:
        files.execute("x-blockdev-set-iothread", node_name="disk", iothread=home, force=True)
    stop.set()
    for thread in threads:
        thread.join()
    os.close(fd)
    assert set(answers) == {b"a" * 4096}
    files.until(lambda: len(files.statistics()) == 1)
    files.execute("object-del", id="t0")
    assert path.read_bytes() == b"a" * 65536


@pytest.mark.parametrize("shape", ["t0", ["t0", "t1", "t2"]])
def test_iothreads(files, shape):
    for name in ("t0", "t1", "t2"):
        files.execute("object-add", qom_type="iothread", id=name)
    files.add_disk(b"a" * 65536)
    path = files.export(writable=True, growable=True, iothread=shape)
    assert len(files.statistics()) == (3 if isinstance(shape, list) else 1)
    fd = os.open(path, os.O_RDWR)

    def one(i):
        data = bytes([i]) * 4096
        os.pwrite(fd, data, i * 10000)
        return os.pread(fd, 4096, i * 10000) == data

    results = []
    threads = [threading.Thread(target=lambda i=i: results.append(one(i))) for i in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(fd)
    assert results == [True] * 100


def test_a_drain_lets_reads_wait_and_attributes_not(files):
    files.add_disk(b"a" * 4096)
    path = files.export()
    answers = []
    with path.open("rb", buffering=0) as file:
        thread = threading.Thread(target=lambda: answers.append(file.read(10)))
        drained = files.yard.graph.drained([files.yard.graph.lookup("disk")])
        with files.portal.wrap_async_context_manager(drained):
            thread.start()
            files.until(lambda: files.statistics()[0].in_flight == 1)
            assert os.stat(path).st_size == 4096
            assert answers == []
        thread.join()
    assert answers == [b"a" * 10]


# -- daemons


@pytest.fixture
def daemon(may_mount, tmp_path):
    """Start a daemon that shows an image; (process, where)."""
    image, path = tmp_path / "disk.img", tmp_path / "mnt"
    image.write_bytes(b"a" * 4096)
    path.write_bytes(b"below")
    started = []

    def start(wait=True):
        words = [DAEMON, "--blockdev", f"file,node-name=disk,filename={image}"]
        words += ["--export", f"fuse,id=e,node-name=disk,mountpoint={path},writable=on"]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        started.append(process)
        while wait and path.read_bytes() != b"a" * 4096:
            assert process.poll() is None
        return process, path

    yield start
    for process in started:
        process.kill()
        process.communicate()
    with contextlib.suppress(OSError):
        subprocess.run(["umount", "-l", path], capture_output=True)


def test_a_daemon_in_the_background(may_mount, tmp_path, until):
    image, path, pid = tmp_path / "disk.img", tmp_path / "mnt", tmp_path / "pid"
    image.write_bytes(b"a" * 4096)
    path.write_bytes(b"below")
    words = [DAEMON, "--daemonize", "--pidfile", "pid"]
    words += ["--blockdev", "file,node-name=disk,filename=disk.img"]
    words += ["--export", "fuse,id=e,node-name=disk,mountpoint=mnt"]
    subprocess.run(words, cwd=tmp_path, check=True, timeout=60)
    assert path.read_bytes() == b"a" * 4096
    os.kill(int(pid.read_text()), signal.SIGTERM)
    until(lambda: not pid.exists())
    assert path.read_bytes() == b"below"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_daemon_that_is_told_to_end_leaves_nothing_mounted(daemon, number):
    process, path = daemon()
    fd = os.open(path, os.O_RDONLY)  # which does not keep it
    process.send_signal(number)
    assert process.wait(20) == 0
    assert path.read_bytes() == b"below"
    with pytest.raises(OSError, match="Transport endpoint is not connected"):
        os.pread(fd, 1, 0)
    os.close(fd)


def test_a_killed_daemon_leaves_a_mount_that_says_so(daemon, run, until, attempt):
    process, path = daemon()
    process.kill()
    process.wait()
    # The kernel takes a moment to close what the ring had open.
    until(lambda: attempt(path.read_bytes) == "ENOTCONN")

    process, _ = daemon(wait=False)
    error = f"Failed to stat '{path}': Transport endpoint is not connected"
    assert error in process.communicate(timeout=20)[1]
    assert process.returncode == 1

    run("fusermount3", "-u", path)
    assert path.read_bytes() == b"below"
    daemon()
