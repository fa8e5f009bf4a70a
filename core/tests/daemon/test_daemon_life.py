# SPDX-License-Identifier: Apache-2.0
"""Life cycle: pid file, background, passed sockets, being told to stop."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockyard import activation


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 10
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_the_pid_file_is_written_locked_and_removed(
    start: Callable[..., Any], once: Any, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    daemon = start("--pidfile", "pid")
    assert f"{daemon.process.pid}\n" == wait_for(lambda: pid.exists() and pid.read_text())
    assert pid.stat().st_mode & 0o777 == 0o600

    second = once("--pidfile", "pid")
    assert second.stderr == (
        "blockyard-daemon: cannot create PID file: Cannot lock pid file: "
        "Resource temporarily unavailable\n"
    )
    assert f"{daemon.process.pid}\n" == pid.read_text()

    daemon.process.terminate()
    assert daemon.wait() == 0
    assert not pid.exists()


def test_a_stale_pid_file_is_replaced(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("99999999999999999999\n")
    daemon = start("--pidfile", "pid")

    wait_for(lambda: (tmp_path / "pid").read_text() == f"{daemon.process.pid}\n")


def test_a_pid_file_that_cannot_be_written_is_left_alone(once: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    # With a reader, a FIFO opens; truncating it fails, as of a device.
    reader = os.open(tmp_path / "pid", os.O_RDONLY | os.O_NONBLOCK)
    done = once("--pidfile", "pid")
    os.close(reader)

    assert done.stderr == (
        "blockyard-daemon: cannot create PID file: Failed to truncate pid file: Invalid argument\n"
    )
    assert (tmp_path / "pid").is_fifo()


def test_the_pid_file_comes_after_everything_else(once: Any, tmp_path: Path) -> None:
    once("--pidfile", "pid", "--chardev", "nix,id=x")

    assert os.listdir(tmp_path) == []


def test_daemonize_returns_when_all_is_set_up(start: Callable[..., Any], tmp_path: Path) -> None:
    daemon = start("--daemonize", "--pidfile", "pid")
    assert daemon.wait() == 0
    pid = int((tmp_path / "pid").read_text())
    try:
        assert os.getsid(pid) != os.getsid(0)
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.readlink(f"/proc/{pid}/fd/2") == "/dev/null"
        assert "Blockyard" in daemon.client().run("query-version")["package"]
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not (tmp_path / "pid").exists())


def test_daemonize_fails_with_what_the_child_says(once: Any) -> None:
    done = once("--daemonize", "--chardev", "nix,id=x")

    assert done.returncode == 1
    assert "'nix' is not a valid char driver name" in done.stderr


def test_daemonize_and_stdio_exclude_each_other(once: Any) -> None:
    done = once("--daemonize", "--chardev", "stdio,id=x")

    assert done.stderr.endswith("cannot use stdio with -daemonize\n")


def test_a_signal_ends_a_daemon_that_waits_for_its_first_client(start: Any) -> None:
    daemon = start(
        "--chardev", "socket,id=w,path=w,server=on", count=0, stderr=subprocess.PIPE, text=True
    )
    line = daemon.process.stderr.readline()
    daemon.process.terminate()

    assert "info: QEMU waiting for connection on: disconnected:unix:w,server=on" in line
    assert daemon.wait() == 0


def test_a_signal_in_the_middle_of_a_command_lets_it_end(start: Any, tmp_path: Path) -> None:
    daemon = start()
    client = daemon.client()
    client.send({"execute": "object-add", "arguments": {"qom-type": "iothread", "id": "t"}})
    daemon.process.terminate()

    assert client.ended()
    assert daemon.wait() == 0


def test_ready_and_stopping_are_told(start: Callable[..., Any], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(10)
        manager.bind(str(tmp_path / "notify"))
        daemon = start(env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(100) == b"READY=1"
        daemon.process.terminate()
        assert manager.recv(100) == b"STOPPING=1"


PROGRAM = """
import os, socket, sys
paths = sys.argv[1].split(",")
high = []
for number, path in enumerate(paths):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    os.dup2(sock.fileno(), 100 + number)
    high.append(sock.detach())
for number in range(len(paths)):
    os.dup2(100 + number, 3 + number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(paths))
os.environ["LISTEN_FDNAMES"] = sys.argv[2]
sys.argv = ["blockyard-daemon", *sys.argv[3:]]
from blockyard.daemon.main import main
sys.exit(main())
"""


@pytest.fixture
def activated(tmp_path: Path) -> Any:
    running = []

    def make(paths: str, names: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", PROGRAM, paths, names, *options]
        running.append(subprocess.Popen(command, cwd=tmp_path))
        return running[-1]

    yield make
    for process in running:
        process.terminate()
        assert process.wait(20) == 0


def test_a_passed_socket_called_qmp_is_the_monitor(activated: Any, tmp_path: Path) -> None:
    activated("qmp.sock", "qmp")
    wait_for((tmp_path / "qmp.sock").exists)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(tmp_path / "qmp.sock"))
        assert sock.recv(1000).startswith(b'{"QMP"')


def test_descriptors_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        found = activation.Passed(sock.fileno(), "mine")
        monkeypatch.setattr(activation, "_passed", (found,))
        with activation.socket_of("mine") as duplicate:
            assert duplicate.family == socket.AF_UNIX


@pytest.mark.parametrize("count", ["", "x", "-1"])
def test_listen_fds_that_make_no_sense_are_nothing(
    monkeypatch: pytest.MonkeyPatch, count: str
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)

    assert activation.listen_descriptors() == ()
    assert "LISTEN_FDS" not in os.environ


def test_listen_fds_of_somebody_else_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "2")

    assert activation.listen_descriptors() == ()
