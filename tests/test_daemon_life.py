# SPDX-License-Identifier: Apache-2.0
"""The daemon with NBD exports: passed sockets, background, ending under clients' hands."""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

PROGRAM = str(Path(sysconfig.get_path("scripts"), "blockyard-daemon"))


def serving(image, *more, name="disk"):
    """Options for one export of an image, ``more`` between node and export."""
    return [
        "--blockdev", f"driver=raw,node-name=disk,file.driver=file,file.filename={image}",
        *more,
        "--export", f"nbd,id=e,node-name=disk,name={name},writable=on",
    ]  # fmt: skip


def size_through(client, *command):
    """What nbdinfo says of the default export of a server that it starts."""
    return int(client("nbdinfo", "--size", "--", "[", PROGRAM, *command, "]"))


def test_nbdinfo_starts_the_daemon_with_a_passed_descriptor(client, image):
    options = serving(image, "--nbd-server", "addr.type=fd,addr.str=3", name="")

    assert size_through(client, *options) == os.path.getsize(image)


def test_a_passed_socket_becomes_the_nbd_server_by_itself(client, image):
    assert size_through(client, *serving(image, name="")) == os.path.getsize(image)


def test_a_passed_socket_keeps_its_file(client, image, tmp_path):
    path = tmp_path / "passed"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        fd = listener.fileno()
        process = subprocess.Popen(
            [PROGRAM, *serving(image, "--nbd-server", f"addr.type=fd,addr.str={fd}")],
            pass_fds=[fd],
        )
    assert int(client("nbdinfo", "--size", f"nbd+unix:///disk?socket={path}")) > 0
    process.terminate()

    assert process.wait(20) == 0
    assert path.exists()


def test_in_the_background_it_serves_as_well(client, image, tmp_path):
    server, pid = tmp_path / "nbd", tmp_path / "pid"
    options = serving(image, "--nbd-server", f"addr.type=unix,addr.path={server}")
    subprocess.run([PROGRAM, "--daemonize", "--pidfile", pid, *options], check=True, timeout=20)
    uri = f"nbd+unix:///disk?socket={server}"
    client("qemu-io", "-f", "raw", "-c", "write -P 0x5a 0 4k", uri)
    os.kill(int(pid.read_text()), signal.SIGTERM)
    deadline = time.monotonic() + 20
    while pid.exists() and time.monotonic() < deadline:
        time.sleep(0.01)

    assert not pid.exists()
    assert image.read_bytes()[:4096] == b"\x5a" * 4096


@pytest.mark.parametrize("how", ["quit", "signal"])
def test_it_ends_within_a_bound_whatever_clients_do(daemon, image, how):
    running = daemon()
    running.serve(image)
    held = []
    for said in (b"", b"\0\0\0\3IHAVE", b"\0\0\0\3" + b"IHAVEOPT" + b"\0\0\0\7\0\0\0\xff"):
        held.append(socket.socket(socket.AF_UNIX))
        held[-1].connect(str(running.nbd))
        held[-1].sendall(said)
    # A monitor's client that does not read, too.
    running.socket.sendall(b'{"execute": "query-named-block-nodes"}' * 2000)
    time.sleep(0.3)
    began = time.monotonic()
    if how == "quit":
        other = running.folder / "none"
        assert not other.exists()
        running.process.send_signal(signal.SIGHUP)
    running.stop()

    assert time.monotonic() - began < 10
    for sock in held:
        sock.close()


def test_an_idle_daemon_is_small(daemon, image):
    running = daemon()
    running.serve(image)
    pages = int(Path(f"/proc/{running.process.pid}/statm").read_text().split()[1])

    assert pages * os.sysconf("SC_PAGE_SIZE") < 50 << 20


def test_it_is_used_as_a_module(image):
    done = subprocess.run(
        [sys.executable, "-m", "blockyard.daemon.main", "-V"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "qemu-storage-daemon 11." in done.stdout
