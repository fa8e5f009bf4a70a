# SPDX-License-Identifier: Apache-2.0
"""Clients that mean harm, or just go; every test ends with another client being served."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MIB = 1 << 20


@pytest.fixture
def other(start: Callable[..., Any]) -> Iterator[Any]:
    """A client of a second monitor; ``other.daemon`` is the daemon."""
    daemon = start(count=2)
    client = daemon.client(1)
    client.daemon = daemon
    yield client
    assert "Blockyard" in client.run("query-version")["package"]


def resident(pid: int) -> int:
    """Resident memory in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 4096,
        b"\xff\xfe" * 4096,
        bytes(range(256)) * 64,
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b"{" * 5000 + b"}" * 5000,
        b'"' + b"a" * MIB,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"'" * 999,
        b"\\" * 999,
        b"1" * 10_000 + b"\n",
        b"-" * 999 + b"\n",
        b'{"execute": "query-version", "id": ' + b"9" * 5000 + b"}",
        b'{"execute": "query-version", "id": 1e99999}',
        b'{"execute": "query-version", "id": "\\ud800"}',
        b'{"execute": "query-version", "execute": "quit"}',
    ],
    ids=lambda g: f"{g[:12]!r}-{len(g)}",
)
def test_garbage_harms_only_itself(other: Any, garbage: bytes) -> None:
    client = other.daemon.client()
    client.send(garbage)
    client.send(b"\xff")
    client.send('{"execute": "query-commands", "id": "after"}\n')

    assert any(b'"after"' in line for line in iter(client.line, b""))


def test_a_huge_string_is_refused_in_bounded_memory(other: Any) -> None:
    client = other.daemon.client()
    before = resident(other.daemon.process.pid)
    client.send('{"execute": "')
    for _ in range(80):
        client.send(b"x" * MIB)
    grown = resident(other.daemon.process.pid) - before

    assert client.read()["error"]["desc"] == "JSON token size limit exceeded"
    # QEMU's own limit on a token is 64 MiB; some copies of it may be around at once.
    assert grown < 400 * MIB


def test_deep_nesting_is_refused(other: Any) -> None:
    client = other.daemon.client()
    client.send('{"execute": "query-version", "id": ' + "[" * 1100)

    assert client.read()["error"]["desc"] == "JSON nesting depth limit exceeded"


def test_deep_nesting_within_the_limit_comes_back(other: Any) -> None:
    client = other.daemon.client()
    client.send('{"execute": "nix", "id": ' + "[" * 900 + "]" * 900 + "}")

    assert b"[" * 900 in client.line()


def test_a_half_command_and_gone(other: Any) -> None:
    for _ in range(20):
        client = other.daemon.client()
        client.send('{"execute": "quit"')
        client.close()


def test_a_client_that_only_shuts_down_sending_gets_its_answers(other: Any) -> None:
    client = other.daemon.client()
    client.send('{"execute": "query-version"}' * 20)
    client.sock.shutdown(socket.SHUT_WR)

    assert len([line for line in iter(client.line, b"") if b"return" in line]) == 20


def test_connections_that_come_and_go(other: Any) -> None:
    fds = len(os.listdir(f"/proc/{other.daemon.process.pid}/fd"))
    for _ in range(100):
        other.daemon.connect().close()
    other.daemon.client().close()
    time.sleep(0.2)

    assert len(os.listdir(f"/proc/{other.daemon.process.pid}/fd")) <= fds + 1


def test_a_client_that_does_not_read_its_replies_is_not_asked_for_more(other: Any) -> None:
    client = other.daemon.client()
    client.sock.setblocking(False)
    before = resident(other.daemon.process.pid)
    sent = 0
    deadline = time.monotonic() + 3
    command = b'{"execute": "query-commands"}' * 100
    while time.monotonic() < deadline and sent < 64 * MIB:
        try:
            sent += client.sock.send(command)
        except BlockingIOError:
            time.sleep(0.02)
            assert "package" in other.run("query-version")

    assert sent < 8 * MIB
    assert resident(other.daemon.process.pid) - before < 32 * MIB


def test_descriptors_that_nobody_takes_are_closed(other: Any) -> None:
    fds = f"/proc/{other.daemon.process.pid}/fd"
    client = other.daemon.client()
    before = len(os.listdir(fds))
    reader, writer = os.pipe()
    for _ in range(200):
        socket.send_fds(client.sock, [b'{"execute": "query-version"}'], [reader] * 10)
        client.read()

    assert len(os.listdir(fds)) <= before + 16
    client.close()
    other.daemon.client()
    time.sleep(0.2)
    assert len(os.listdir(fds)) <= before + 1
    os.close(reader)
    os.close(writer)


class Full:
    """A unix socket that nobody accepts on, its queue full: connecting to it waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.accepted: list[socket.socket] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(0)
        self.waiting = socket.socket(socket.AF_UNIX)
        self.waiting.connect(str(path))

    def backend(self) -> dict[str, Any]:
        address = {"type": "unix", "data": {"path": str(self.path)}}
        return {"type": "socket", "data": {"addr": address, "server": False}}

    def accept(self) -> None:
        """Let whoever waits in."""
        self.listener.setblocking(True)
        for _ in range(2):
            self.accepted.append(self.listener.accept()[0])

    def close(self) -> None:
        for sock in (self.listener, self.waiting, *self.accepted):
            sock.close()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Full]:
    made = Full(tmp_path / "full")
    yield made
    made.close()


def test_a_command_that_has_begun_outlives_its_client(
    start: Callable[..., Any], full: Full
) -> None:
    daemon = start()
    client = daemon.client()
    client.send({"execute": "chardev-add", "arguments": {"id": "s", "backend": full.backend()}})
    client.send({"execute": "object-add", "arguments": {"qom-type": "iothread", "id": "never"}})
    time.sleep(0.3)
    client.close()
    # The next client is greeted although the command still runs.
    again = daemon.connect()
    assert "QMP" in again.read()
    full.accept()

    again.run("qmp_capabilities")
    assert {"c0", "s"} == {each["label"] for each in again.run("query-chardev")}
    assert again.error("object-del", id="never") == "object 'never' not found"


def test_connecting_to_who_does_not_answer_is_bounded(
    start: Callable[..., Any], full: Full
) -> None:
    daemon = start(count=2)
    client, other = daemon.client(0), daemon.client(1)
    client.send({"execute": "chardev-add", "arguments": {"id": "s", "backend": full.backend()}})
    began = time.monotonic()

    assert [each["label"] for each in other.run("query-chardev")] == ["c0", "c1"]
    assert "timed out" in client.read()["error"]["desc"]
    assert time.monotonic() - began < 15


def test_quit_ends_the_daemon_while_clients_are_silent(start: Callable[..., Any]) -> None:
    daemon = start(count=3)
    silent, clogged, client = daemon.connect(0), daemon.client(1), daemon.client(2)
    clogged.send('{"execute": "query-commands"}' * 1000)
    time.sleep(0.3)

    assert client.ask('{"execute": "quit"}') == {"return": {}}
    assert client.ended()
    began = time.monotonic()
    assert daemon.wait() == 0
    assert time.monotonic() - began < 5
    assert silent is not clogged


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_daemon_in_order(start: Callable[..., Any], number: int) -> None:
    daemon = start("--pidfile", "pid")
    client = daemon.client()
    daemon.process.send_signal(number)

    assert client.ended()
    assert daemon.wait() == 0
    assert not {"pid", "qmp0"} & set(os.listdir(daemon.folder))
