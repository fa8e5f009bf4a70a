# SPDX-License-Identifier: Apache-2.0
"""Each kind of chardev, with a monitor on it where it can have one."""

import json
import os
import pty
import select
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockyard.chardev.parse import parse_line

VERSION = b'{"execute": "qmp_capabilities"}{"execute": "query-version"}'


def add(client: Any, label: str, kind: str, /, **data: Any) -> Any:
    backend = {"type": kind, "data": {k.replace("_", "-"): v for k, v in data.items()}}
    return client.run("chardev-add", id=label, backend=backend)


def refused(client: Any, label: str, kind: str, /, **data: Any) -> str:
    backend = {"type": kind, "data": {k.replace("_", "-"): v for k, v in data.items()}}
    text: str = client.error("chardev-add", id=label, backend=backend)
    return text.removeprefix(f"Failed to add chardev '{label}': ")


def read_fd(fd: int, count: int) -> list[Any]:
    """So many lines of JSON."""
    text = b""
    while text.count(b"\n") < count:
        assert select.select([fd], [], [], 10)[0], text
        text += os.read(fd, 1 << 16)
    return [json.loads(line) for line in text.splitlines() if line]


def test_stdio_is_a_monitor(start: Callable[..., Any]) -> None:
    daemon = start(
        "--chardev", "stdio,id=s", "--monitor", "s",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    daemon.process.stdin.write(VERSION)
    daemon.process.stdin.flush()
    lines = read_fd(daemon.process.stdout.fileno(), 3)
    assert "Blockyard" in lines[2]["return"]["package"]

    # After the end of its input the daemon goes on.
    daemon.process.stdin.close()
    daemon.process.stdin = None
    assert "s" in [each["label"] for each in daemon.client().run("query-chardev")]


def test_stdio_from_a_file(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(VERSION + b'{"execute": "quit"}')
    with (tmp_path / "in").open() as commands, (tmp_path / "out").open("w") as out:
        daemon = start(
            "--chardev", "stdio,id=s", "--monitor", "s", count=0, stdin=commands, stdout=out
        )
        assert daemon.wait() == 0

    lines = (tmp_path / "out").read_text().splitlines()
    assert len(lines) == 4
    assert lines[3] == '{"return": {}}'


def test_stdio_on_a_terminal_is_given_back_as_it_was(start: Callable[..., Any]) -> None:
    import termios

    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    daemon = start("--chardev", "stdio,id=s", "--monitor", "s", stdin=slave, stdout=slave)
    assert "QMP" in read_fd(master, 1)[0]
    os.write(master, VERSION)
    assert len(read_fd(master, 2)) == 2
    assert before != termios.tcgetattr(slave)
    daemon.client().run("quit")
    daemon.wait()

    assert before == termios.tcgetattr(slave)
    os.close(master)
    os.close(slave)


def test_only_one_chardev_is_stdio(once: Any) -> None:
    done = once("--chardev", "stdio,id=a", "--chardev", "stdio,id=b")

    assert done.stderr.endswith("cannot use stdio by multiple character devices\n")


def test_a_pair_of_pipes_is_a_monitor(start: Callable[..., Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.in")
    os.mkfifo(tmp_path / "p.out")
    daemon = start("--chardev", "pipe,id=p,path=p", "--monitor", "p")
    daemon.client()
    fd = os.open(tmp_path / "p.out", os.O_RDONLY)
    with (tmp_path / "p.in").open("wb") as commands:
        commands.write(VERSION)
    lines = read_fd(fd, 3)
    os.close(fd)

    assert "Blockyard" in lines[2]["return"]["package"]


def test_a_pty_is_a_monitor_for_one_after_the_other(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    daemon = start("--chardev", "pty,id=t,path=link", "--monitor", "t")
    client = daemon.client()
    path = os.readlink(tmp_path / "link")
    names = {each["label"]: each["filename"] for each in client.run("query-chardev")}
    assert f"pty:{path}" == names["t"]
    for _ in range(3):
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        assert "QMP" in read_fd(fd, 1)[0]
        os.write(fd, VERSION)
        assert len(read_fd(fd, 2)) == 2
        os.close(fd)
        time.sleep(0.3)
    client.run("quit")
    daemon.wait()

    assert not os.path.lexists(tmp_path / "link")


def test_chardev_add_answers_the_pty(client: Any) -> None:
    assert add(client, "t", "pty")["pty"].startswith("/dev/")


def test_a_file_gets_the_output(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "commands").write_bytes(VERSION)
    daemon = start("--chardev", "file,id=f,path=out,input-path=commands", "--monitor", "f", count=1)
    daemon.client().run("quit")
    daemon.wait()

    assert "Blockyard" in (tmp_path / "out").read_text().splitlines()[2]


def test_a_file_is_truncated_or_appended_to(client: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    add(client, "a", "file", out=str(tmp_path / "a"))
    add(client, "b", "file", out=str(tmp_path / "b"), append=True)

    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("", "old")


def test_a_fifo_without_a_reader_does_not_block(client: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    text = refused(client, "f", "file", out=str(tmp_path / "fifo"))
    assert f"Could not open '{tmp_path}/fifo': No such device or address" == text


def test_a_log_gets_a_copy_of_the_output(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "log").write_text("old\n")
    daemon = start(
        "--chardev", "socket,id=l,path=qmp5,server=on,wait=off,logfile=log,logappend=on,"
        "logtimestamp=on", "--monitor", "l", count=0,
    )  # fmt: skip
    daemon.client(5)
    lines = (tmp_path / "log").read_text().splitlines()

    assert lines[0] == "old"
    assert "Z {" in lines[1]
    assert lines[2].endswith('{"return": {}}')


RINGBUF: list[tuple[str, dict[str, Any], Any]] = [
    ("write", {"data": "abcdefghijk"}, {}),
    ("read", {"size": 3}, "def"),
    ("read", {"size": 30, "format": "base64"}, "Z2hpams="),
    ("read", {"size": 30}, ""),
    ("read", {"size": 0}, "size must be greater than zero"),
    ("write", {"data": "!!", "format": "base64"}, "Base64 data contains invalid characters"),
    ("write", {"data": "/4A=", "format": "base64"}, {}),
    ("read", {"size": 30}, "\ufffd\ufffd"),
]


def test_ringbuf_keeps_the_newest(client: Any) -> None:
    check_ringbuf(client)


def test_ringbuf_of_a_real_storage_daemon(peer: Any) -> None:
    check_ringbuf(peer)


def check_ringbuf(client: Any) -> None:
    add(client, "r", "ringbuf", size=8)
    for what, arguments, expected in RINGBUF:
        answer = client.run_or_error(f"ringbuf-{what}", device="r", **arguments)
        assert expected == answer.get("return", answer.get("error", {}).get("desc"))
    add(client, "n", "null")
    assert client.error("ringbuf-read", device="n", size=1) == "n is not a ringbuf device"
    assert client.error("ringbuf-write", device="x", data="") == "Device 'x' not found"


def test_a_ringbuf_can_be_a_monitors(start: Callable[..., Any]) -> None:
    client = start("--chardev", "ringbuf,id=r", "--monitor", "r").client()

    time.sleep(0.1)
    assert client.run("ringbuf-read", device="r", size=9999).startswith('{"QMP"')


def test_a_client_socket_comes_back_when_its_server_does(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    daemon = start(
        "--chardev", "socket,id=r,path=back,reconnect-ms=50", "--monitor", "r",
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    daemon.client()
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(10)
            listener.bind(str(tmp_path / "back"))
            listener.listen()
            peer, _ = listener.accept()
            assert peer.recv(1000).startswith(b'{"QMP"')
            peer.close()
        os.unlink(tmp_path / "back")
    daemon.process.terminate()
    daemon.wait()

    assert (
        "blockyard-daemon: Unable to connect character device r: "
        "Failed to connect to 'back': No such file or directory\n"
    ) in daemon.process.stderr.read()


def test_a_tcp_server_says_its_port(client: Any) -> None:
    address = {"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}
    add(client, "t", "socket", addr=address, server=True, wait=False)
    client.run("object-add", **{"qom-type": "monitor-qmp", "id": "m", "chardev": "t"})
    found = client.run("qom-get", path="/chardevs/t", property="addr")
    assert not client.run("qom-get", path="t", property="connected")
    with socket.create_connection(("127.0.0.1", int(found["port"])), 10) as sock:
        assert sock.recv(1000).startswith(b'{"QMP"')
        assert client.run("qom-get", path="t", property="connected")


def test_a_server_listens_on_both_families(client: Any) -> None:
    address = {"type": "inet", "data": {"host": "localhost", "port": "0"}}
    add(client, "t", "socket", addr=address, server=True, wait=False)
    client.run("object-add", **{"qom-type": "monitor-qmp", "id": "m", "chardev": "t"})
    port = int(client.run("qom-get", path="/chardevs/t", property="addr")["port"])
    for family in {each[0] for each in socket.getaddrinfo("localhost", port)}:
        with socket.socket(family) as sock:
            sock.settimeout(10)
            sock.connect(("localhost", port))
            assert sock.recv(1000).startswith(b'{"QMP"')


def test_a_socket_is_passed_by_number(start: Callable[..., Any], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "qmp7"))
        listener.listen()
        fd = listener.fileno()
        daemon = start(
            "--chardev", f"socket,fd={fd},server=on,wait=off,id=p", "--monitor", "p",
            count=0, pass_fds=[fd],
        )  # fmt: skip
    assert "Blockyard" in daemon.client(7).run("query-version")["package"]


def test_a_file_in_the_sockets_place_is_left_alone(client: Any, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    address = {"type": "unix", "data": {"path": str(precious)}}

    text = refused(client, "s", "socket", addr=address, server=True)
    assert text == f"Failed to bind socket to {precious}: Address already in use"
    assert precious.read_text() == "data"


def unix(path: str, **more: Any) -> dict[str, Any]:
    return {"type": "unix", "data": {"path": path, **more}}


def inet(host: str, port: str, **more: Any) -> dict[str, Any]:
    return {"type": "inet", "data": {"host": host, "port": port, **more}}


#: What is refused, with the words of a qemu-storage-daemon 11.1.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("vc", {}, "'vc' is not a valid char driver name"),
    ("braille", {}, "'braille' is not a valid char driver name"),
    ("ringbuf", {"size": 7}, "size of ringbuf chardev must be power of two"),
    ("file", {"out": "/nonexist/a"}, "Could not open '/nonexist/a': No such file or directory"),
    ("pipe", {"device": "/nonexist/p"}, "Could not open '/nonexist/p': No such file or directory"),
    (
        "null",
        {"logfile": "/nonexist/l"},
        "Could not create '/nonexist/l': No such file or directory",
    ),
    (
        "socket",
        {"addr": unix("/tmp/" + "x" * 200)},
        f"UNIX socket path '/tmp/{'x' * 200}' is too long",
    ),
    (
        "socket",
        {"addr": unix("x" * 108)},
        f"UNIX socket path '{'x' * 108}' is too long",
    ),
    ("socket", {"addr": unix("/a\0b")}, "UNIX socket path '/a\0b' has a zero byte in it"),
    (
        "socket",
        {"addr": inet("x" * 64, "5")},
        f"address resolution failed for {'x' * 64}:5: Name or service not known",
    ),
    (
        "socket",
        {"addr": inet("nonexist.invalid", "5")},
        "address resolution failed for nonexist.invalid:5: Name or service not known",
    ),
    (
        "socket",
        {"addr": inet("127.0.0.1", "no")},
        "address resolution failed for 127.0.0.1:no: Servname not supported for ai_socktype",
    ),
    (
        "socket",
        {"addr": inet("192.0.2.1", "0")},
        "Failed to bind socket: Cannot assign requested address",
    ),
    (
        "socket",
        {"addr": inet("127.0.0.1", "1"), "server": False},
        "Failed to connect to '127.0.0.1:1': Connection refused",
    ),
    (
        "socket",
        {"addr": inet("127.0.0.1", "0", ipv4=False, ipv6=False)},
        "Cannot disable IPv4 and IPv6 at same time",
    ),
    (
        "socket",
        {"addr": unix("x"), "server": False, "wait": True},
        "'wait' option is incompatible with socket in client connect mode",
    ),
    (
        "socket",
        {"addr": unix("x"), "reconnect_ms": 3},
        "'reconnect-ms' option is incompatible with socket in server listen mode",
    ),
    (
        "socket",
        {"addr": unix("x"), "server": False, "websocket": True},
        "Websocket client is not implemented",
    ),
    (
        "socket",
        {"addr": unix("x"), "tls_authz": "x"},
        "'tls_authz' option requires 'tls_creds' option",
    ),
    ("socket", {"addr": unix("x"), "tls_creds": "x"}, "No TLS credentials with id 'x'"),
]


@pytest.mark.parametrize(("kind", "data", "text"), REFUSED)
def test_refusals(client: Any, kind: str, data: dict[str, Any], text: str) -> None:
    assert text == refused(client, "x", kind, **data)
    assert [each["label"] for each in client.run("query-chardev")] == ["c0"]


def test_a_real_storage_daemon_refuses_in_the_same_words(peer: Any) -> None:
    for kind, data, text in REFUSED:
        assert text == refused(peer, "x", kind, **data)


@pytest.mark.parametrize("name", ["telnet", "tn3270", "websocket"])
def test_protocols_that_are_not_spoken_are_refused_by_name(client: Any, name: str) -> None:
    text = refused(client, "x", "socket", addr=unix("x"), **{name: True})

    assert f"'{name}' option is not supported" in text


def test_change_and_remove(client: Any) -> None:
    check_change_and_remove(client)


def test_change_and_remove_of_a_real_storage_daemon(peer: Any) -> None:
    check_change_and_remove(peer)


def check_change_and_remove(client: Any) -> None:
    null = {"type": "null", "data": {}}
    add(client, "n", "null")
    again = client.error("chardev-add", id="n", backend=null)
    assert again == "Chardev with id 'n' already exists"
    assert client.run("chardev-change", id="n", backend={"type": "ringbuf", "data": {}}) == {}
    assert client.run("ringbuf-read", device="n", size=5) == ""
    assert client.error("chardev-change", id="x", backend=null) == "Chardev 'x' does not exist"
    assert (
        client.error("chardev-change", id="c0", backend=null)
        == "Chardev user does not support chardev hotswap"
    )
    assert client.run("chardev-send-break", id="n") == {}
    assert client.error("chardev-send-break", id="x") == "Chardev 'x' not found"
    assert client.run("chardev-remove", id="n") == {}
    assert client.error("chardev-remove", id="n") == "Chardev 'n' not found"
    assert client.error("chardev-remove", id="c0") == "Chardev 'c0' is busy"


def test_a_failed_change_keeps_the_old_one(client: Any) -> None:
    add(client, "r", "ringbuf", size=8)
    client.run("ringbuf-write", device="r", data="kept")
    client.error("chardev-change", id="r", backend={"type": "ringbuf", "data": {"size": 3}})

    assert client.run("ringbuf-read", device="r", size=8) == "kept"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("null,id=a", {"backend": "null", "id": "a"}),
        ("backend=null,id=a,,b", None),
        ("socket,id=a,path=x,,y,server,nowait", {"path": "x,y", "server": True, "wait": False}),
        ("socket,id=a,port=0x10,to=0x10", {"port": "0x10", "to": 16}),
        ("ringbuf,id=a,size=64k", {"size": 65536}),
        ("null,id=a,id=b", {"id": "b"}),
    ],
)
def test_the_older_form_of_options(text: str, expected: dict[str, Any] | None) -> None:
    if expected is None:
        with pytest.raises(ValueError, match="identifier"):
            parse_line(text)
        return
    assert expected.items() <= parse_line(text).values.items()
