# SPDX-License-Identifier: Apache-2.0
"""`blockyard nbd` under real clients: nbdinfo, nbdcopy, qemu-img, qemu-io, libnbd's bindings."""

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(sysconfig.get_path("scripts"), "blockyard-nbd")
SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's libnbd bindings are for this one
LIMIT = 60
MIB = 1 << 20

Serve = Callable[..., "Server"]


def run(*words: Any, status: int = 0, **options: Any) -> str:
    """Run a program; what it says to standard output and, if it fails, to standard error."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=LIMIT, **options
    )
    assert done.returncode == status, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout + (done.stderr if status else "")


class Server:
    """A running `blockyard nbd` on a unix socket."""

    def __init__(self, path: Path, words: tuple[Any, ...], stack: ExitStack) -> None:
        self.path = path
        self.uri = f"nbd+unix:///?socket={path}"
        self.process = subprocess.Popen(
            [PROGRAM, "-k", path, *map(str, words)], stderr=subprocess.PIPE, text=True
        )
        stack.callback(self._kill)
        end = time.monotonic() + LIMIT
        while not path.exists() and time.monotonic() < end and self.process.poll() is None:
            time.sleep(0.01)

    def named(self, name: str) -> str:
        return f"nbd+unix:///{name}?socket={self.path}"

    def ended(self) -> int:
        """Its exit status."""
        return self.process.wait(LIMIT)

    def stop(self, number: int = signal.SIGTERM) -> str:
        """End it by a signal; what it said."""
        self.process.send_signal(number)
        assert self.ended() == 0
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """``serve("-t", image)``: a server, which ends with the test."""
    with ExitStack() as stack:
        count = iter(range(9))
        yield lambda *words: Server(tmp_path / f"socket{next(count)}", words, stack)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw image of 4 MiB, half of it random."""
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(2 * MIB) + bytes(2 * MIB))
    return path


@pytest.fixture
def qcow2(tmp_path: Path) -> Path:
    """An image of 2 MiB: 0x11 in its snapshot ``first`` (id 1), 0x22 now, in the first 64 KiB."""
    path = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    run("qemu-io", "-c", "write -P 0x11 0 64k", path)
    run("qemu-img", "snapshot", "-c", "first", path)
    run("qemu-io", "-c", "write -P 0x22 0 64k", path)
    run("qemu-img", "resize", "-q", path, "2M")
    return path


def described(uri: str) -> dict[str, Any]:
    [found] = json.loads(run("nbdinfo", "--json", uri))["exports"]
    return dict(found)


# -- what is exported


def test_nbdinfo_sees_one_export_and_the_server_ends_with_it(serve: Serve, raw: Path) -> None:
    server = serve("-f", "raw", raw)
    found = described(server.uri)

    assert (found["export-name"], found["export-size"]) == ("", 4 * MIB)
    assert found["contexts"] == ["base:allocation"]
    assert not found["can_multi_conn"]
    assert not found["is_read_only"]
    assert server.ended() == 0
    assert not server.path.exists()


def test_what_clients_are_told_is_what_was_asked_for(serve: Serve, qcow2: Path) -> None:
    server = serve("-t", "-r", "-e", 3, "-x", "a name", "-D", "a text", "-A", qcow2)
    found = described(server.named("a%20name"))

    assert found["description"] == "a text"
    assert found["contexts"] == ["base:allocation", "qemu:allocation-depth"]
    assert found["is_read_only"]
    assert found["can_multi_conn"]
    said = run("nbdinfo", server.uri, status=1)
    assert "No such file or directory for the default export" in said
    server.stop()


def test_clients_that_only_ask_do_not_end_it(serve: Serve, raw: Path) -> None:
    server = serve("-f", "raw", raw)
    for _ in range(3):
        assert "export: ''" in run("qemu-nbd", "-L", "-k", server.path)
        run("nbdinfo", server.named("other"), status=1)
    assert run("nbdinfo", "--size", server.uri) == f"{4 * MIB}\n"
    assert server.ended() == 0


def test_an_offset_hides_the_front(serve: Serve, raw: Path, tmp_path: Path) -> None:
    server = serve("-f", "raw", "-o", "0x80000", raw)
    run("nbdcopy", server.uri, tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == raw.read_bytes()[0x80000:]
    assert server.ended() == 0


def test_image_options_open_a_part(serve: Serve, raw: Path, tmp_path: Path) -> None:
    text = f"driver=raw,offset=1M,size=512k,file.driver=file,file.filename={raw}"
    run("nbdcopy", serve("--image-opts", text).uri, tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == raw.read_bytes()[MIB : MIB + MIB // 2]


@pytest.mark.parametrize("choice", ["first", "1", "snapshot.id=1,snapshot.name=first"])
def test_an_internal_snapshot_is_read(serve: Serve, qcow2: Path, choice: str) -> None:
    server = serve("-l", choice, qcow2)
    found = run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x11 0 64k", server.uri)

    assert "Pattern verification failed" not in found
    assert server.ended() == 0
    assert "0x22" not in run("qemu-io", "-r", "-c", "read -P 0x22 0 64k", qcow2)


def test_a_temporary_overlay_keeps_the_image_as_it_is(serve: Serve, qcow2: Path) -> None:
    before = qcow2.read_bytes()
    server = serve("-t", "-s", qcow2)
    for command in ("write -P 0x33 0 1M", "read -P 0x33 0 1M", "read -P 0 1M 1M"):
        found = run("qemu-io", "-f", "raw", "-c", command, server.uri)
        assert "Pattern verification failed" not in found
    server.stop()

    assert qcow2.read_bytes() == before


def test_bitmaps_are_shown(serve: Serve, qcow2: Path) -> None:
    for name in ("b0", "b1"):
        run("qemu-img", "bitmap", "--add", "-f", "qcow2", qcow2, name)
    run("qemu-io", "-c", "write 1M 64k", qcow2)
    run("qemu-img", "bitmap", "--disable", "-f", "qcow2", qcow2, "b0")
    server = serve("-t", "-r", "-B", "b0", "-B", "b1", qcow2)
    contexts = described(server.uri)["contexts"]
    found = run("nbdinfo", "--map=qemu:dirty-bitmap:b0", "--json", server.uri)
    server.stop()

    assert contexts == ["base:allocation", "qemu:dirty-bitmap:b0", "qemu:dirty-bitmap:b1"]
    assert [(e["offset"], e["type"]) for e in json.loads(found)] == [
        (0, 0), (MIB, 1), (MIB + 65536, 0),
    ]  # fmt: skip


# -- data


def test_images_are_converted_through_it(serve: Serve, raw: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", target, "4M")
    server = serve("-t", "-e", 0, "--discard=unmap", "--detect-zeroes=unmap", target)
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", raw, server.uri)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", raw, server.uri)
    run("nbdcopy", server.uri, tmp_path / "copy")
    server.stop()

    assert (tmp_path / "copy").read_bytes() == raw.read_bytes()
    run("qemu-img", "check", "-q", target)
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, target)
    assert target.stat().st_blocks * 512 < 3 * MIB


def test_nbdcopy_copies_into_it(serve: Serve, raw: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(bytes(4 * MIB))
    server = serve("-t", "-e", 8, "--cache=writethrough", "-f", "raw", target)
    run("nbdcopy", "--connections=4", raw, server.uri)
    server.stop(signal.SIGINT)

    assert target.read_bytes() == raw.read_bytes()


_LIBNBD = """
import nbd, sys
handle = nbd.NBD()
handle.add_meta_context("base:allocation")
handle.connect_uri(sys.argv[1])
handle.pwrite(b"x" * 5000, 123, nbd.CMD_FLAG_FUA)
handle.zero(4096, 0)
handle.flush()
assert handle.pread(5000, 0) == bytes(4096) + b"x" * 904
found = []
handle.block_status(handle.get_size(), 0, lambda context, offset, entries, error: found.append(1))
assert found
try:
    handle.pread(512, handle.get_size())
except nbd.Error as error:
    assert error.errno == "EINVAL", error
else:
    raise AssertionError
handle.shutdown()
"""


def test_libnbd_writes_and_asks(serve: Serve, raw: Path) -> None:
    server = serve("-f", "raw", raw)
    run(SYSTEM_PYTHON, "-c", _LIBNBD, server.uri)

    assert server.ended() == 0
    assert raw.read_bytes()[4096:5123] == b"x" * 1027


def test_a_guessed_raw_image_stays_raw(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "guessed"
    path.write_bytes(bytes(MIB))
    server = serve("-t", path)
    header = tmp_path / "header"
    header.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(504))
    run("qemu-io", "-f", "raw", "-c", f"write -s {header} 0 512", server.uri, status=1)
    run("qemu-io", "-f", "raw", "-c", "write -P 7 0 512", server.uri)
    assert "probing guessed raw" in server.stop()

    assert path.read_bytes()[:512] == b"\7" * 512


# -- life


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_under_a_client(serve: Serve, raw: Path, number: int) -> None:
    server = serve("-t", "-f", "raw", raw)
    with socket.socket(socket.AF_UNIX) as idle:
        idle.connect(str(server.path))
        assert idle.recv(8) == b"NBDMAGIC"
        server.stop(number)

    assert not server.path.exists()


def test_as_many_clients_as_are_shared(serve: Serve, raw: Path) -> None:
    server = serve("-t", "-e", 2, "-f", "raw", raw)
    code = (
        "import nbd, sys\n"
        "handles = [nbd.NBD() for _ in range(2)]\n"
        "for handle in handles: handle.connect_uri(sys.argv[1])\n"
        "print('here', flush=True)\n"
        "sys.stdin.read()\n"
    )
    words = [SYSTEM_PYTHON, "-c", code, server.uri]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as both:
        assert both.stdin is not None
        assert both.stdout is not None
        assert both.stdout.readline() == b"here\n"
        with socket.socket(socket.AF_UNIX) as third:
            third.connect(str(server.path))
            third.settimeout(0.3)
            with pytest.raises(TimeoutError):
                third.recv(8)
            both.stdin.close()
            third.settimeout(LIMIT)
            assert third.recv(8) == b"NBDMAGIC"
    server.stop()


def test_in_the_background(raw: Path, tmp_path: Path) -> None:
    path, pid = tmp_path / "socket", tmp_path / "pid"
    words = [PROGRAM, "--fork", "-t", "-k", path, "--pid-file", pid, "-f", "raw", raw.name]
    assert run(*words, cwd=tmp_path) == ""
    number = int(pid.read_text())
    try:
        assert os.readlink(f"/proc/{number}/cwd") == "/"
        assert {os.readlink(f"/proc/{number}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
        assert run("nbdinfo", "--size", f"nbd+unix:///?socket={path}") == f"{4 * MIB}\n"
    finally:
        os.kill(number, signal.SIGTERM)
    end = time.monotonic() + LIMIT
    while path.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not path.exists()


def test_the_background_passes_complaints_on(raw: Path, tmp_path: Path) -> None:
    path, pid = tmp_path / "socket", tmp_path / "pid"
    words = [PROGRAM, "--fork", "-k", path, "--pid-file", pid]
    said = run(*words, "-f", "raw", "nosuch", status=1)
    assert said == (
        "qemu-nbd: Failed to blk_new_open 'nosuch': Could not open 'nosuch': "
        "No such file or directory\n"
    )
    assert not pid.exists()
    # Whoever says something fails, as far as the parent can tell; the child serves all the same.
    said = run(*words, raw, status=1)
    assert said.startswith("WARNING: Image format was not specified")
    assert run("nbdinfo", "--size", f"nbd+unix:///?socket={path}") == f"{4 * MIB}\n"


def test_nbdinfo_starts_it_with_a_passed_socket(raw: Path) -> None:
    assert run("nbdinfo", "--size", "--", "[", PROGRAM, "-f", "raw", raw, "]") == f"{4 * MIB}\n"


_PASS_ON = """
import os, socket, sys
count = int(sys.argv[1])
sockets = [socket.socket(socket.AF_UNIX) for _ in range(count)]
for index, one in enumerate(sockets):
    one.bind(sys.argv[2] + str(index))
    one.listen()
high = [os.dup(one.fileno()) for one in sockets]
copies = [os.dup2(os.dup(fd), 50 + index) for index, fd in enumerate(high)]
for index in range(count):
    os.dup2(50 + index, 3 + index)
os.environ.update(LISTEN_FDS=str(count), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[3], sys.argv[3:])
"""


def test_several_sockets_may_be_passed(raw: Path, tmp_path: Path) -> None:
    base = str(tmp_path / "passed")
    words = [sys.executable, "-c", _PASS_ON, "2", base, PROGRAM, "-t", "-e", "2", "-f", "raw", raw]
    with subprocess.Popen(words) as process:
        try:
            end = time.monotonic() + LIMIT
            while not os.path.exists(f"{base}1") and time.monotonic() < end:
                time.sleep(0.01)
            for index in range(2):
                run("nbdinfo", f"nbd+unix:///?socket={base}{index}")
        finally:
            process.terminate()
        assert process.wait(LIMIT) == 0
    assert os.path.exists(f"{base}0")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("-k", "/s", "x"), "Unix socket can't be set when using socket activation"),
        (("-p", "1", "x"), "TCP port number can't be set when using socket activation"),
        (("-b", "::", "x"), "The interface can't be set when using socket activation"),
        (("-c", "/d", "-v", "x"), "NBD device can't be set when using socket activation"),
        (("--selinux-label=l", "x"), "SELinux label can't be set when using socket activation"),
        (("-L",), "List mode is incompatible with socket activation"),
    ],
)
def test_a_passed_socket_is_all_there_is(words: Any, text: str, tmp_path: Path) -> None:
    said = run(sys.executable, "-c", _PASS_ON, 1, tmp_path / "passed", PROGRAM, *words, status=1)
    assert said == f"qemu-nbd: {text}\n"
