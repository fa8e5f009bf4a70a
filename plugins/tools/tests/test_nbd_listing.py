# SPDX-License-Identifier: Apache-2.0
"""`blockyard nbd -L`: what a server says, and what is said of servers that say nonsense."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard_tools.error import ProgramError
from blockyard_tools.nbd.main import main

GREETING = b"NBDMAGICIHAVEOPT" + b"\0\3"
UNSUPPORTED, POLICY, TLS, UNKNOWN = (1 << 31 | number for number in (1, 2, 5, 6))
LIST, INFO, STRUCTURED, CONTEXTS, EXTENDED = 3, 6, 8, 9, 11


def reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data


def info(size: int, flags: int) -> bytes:
    return reply(INFO, 3, struct.pack(">HQH", 0, size, flags))


def named(name: bytes, description: bytes = b"") -> bytes:
    return reply(LIST, 2, struct.pack(">I", len(name)) + name + description)


SIMPLE = (GREETING, reply(EXTENDED, UNSUPPORTED), reply(STRUCTURED, UNSUPPORTED))
ONE = named(b"a", b"hey") + reply(LIST, 1)


class Fake:
    """A server that says what it was given, whatever it hears."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread: threading.Thread | None = None

    def says(self, *pieces: bytes) -> None:
        self._thread = threading.Thread(target=self._serve, args=pieces)
        self._thread.start()

    def _serve(self, *pieces: bytes) -> None:
        client, _ = self._listener.accept()
        # Whoever does not like what it hears hangs up.
        with client, contextlib.suppress(OSError):
            client.settimeout(20)
            client.sendall(b"".join(pieces))
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join(20)
        self._listener.close()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    server = Fake(tmp_path / "socket")
    yield server
    server.close()


def listed(fake: Fake, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["-L", "-k", str(fake.path)]) == 0
    return capsys.readouterr().out.splitlines()


def test_all_that_a_server_tells(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = reply(INFO, 3, struct.pack(">HIII", 3, 512, 4096, 65536))
    fake.says(
        GREETING, reply(EXTENDED, 1), ONE, info(12345, 0xFFFF), blocks, reply(INFO, 1),
        reply(CONTEXTS, 4, b"\0\0\0\0base:allocation"), reply(CONTEXTS, 1),
    )  # fmt: skip

    assert listed(fake, capsys) == [
        "exports available: 1",
        " export: 'a'",
        "  description: hey",
        "  size:  12345",
        (
            "  flags: 0xffff ( readonly flush fua rotational trim zeroes df multi resize cache "
            "fast-zero block-status-payload )"
        ),
        "  min block: 512",
        "  opt block: 4096",
        "  max block: 65536",
        "  transaction size: 64-bit",
        "  available meta contexts: 1",
        "   base:allocation",
    ]


def test_a_server_that_tells_little(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.says(*SIMPLE, ONE, reply(INFO, UNSUPPORTED))

    assert listed(fake, capsys) == [
        "exports available: 1", " export: 'a'", "  description: hey", "  transaction size: 32-bit",
    ]  # fmt: skip


def test_a_server_of_the_old_style(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.says(b"NBDMAGIC" + struct.pack(">QQI", 0x00420281861253, 1 << 20, 3) + bytes(124))

    assert listed(fake, capsys) == [
        "exports available: 1", " export: ''", "  size:  1048576", "  flags: 0x3 ( readonly )",
        "  transaction size: 32-bit",
    ]  # fmt: skip


def test_a_server_without_lists_has_none(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.says(*SIMPLE, reply(LIST, UNSUPPORTED))
    assert listed(fake, capsys) == ["exports available: 0"]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ((), "Failed to read initial magic: Unexpected end-of-file before all data were read"),
        ((b"HELLO WORLD HELLO",), "Bad initial magic received: 0x48454c4c4f20574f"),
        ((b"NBDMAGICXXXXXXXX",), "Bad server magic received: 0x5858585858585858"),
        ((GREETING[:16] + b"\0\0",), "Server does not support export lists"),
        (
            (GREETING, reply(99, 1)),
            "Unexpected option type 99 (<unknown>), expected 11 (extended headers)",
        ),
        ((GREETING, b"x" * 20), "Unexpected option reply magic"),
        (
            (*SIMPLE, reply(LIST, POLICY, b"no way")),
            "Denied by server for option 3 (list)\nserver reported: no way",
        ),
        (
            (*SIMPLE, reply(LIST, TLS)),
            "TLS negotiation required before option 3 (list)\nDid you forget a valid tls-creds?",
        ),
        ((*SIMPLE, reply(LIST, 2, b"\0")), "incorrect option length 1"),
        (
            (*SIMPLE, reply(LIST, 2, b"\0\0\0\xffabc")),
            "incorrect name length in server's list response",
        ),
        ((*SIMPLE, reply(LIST, 1, b"\0")), "length too long for option end"),
        ((*SIMPLE, ONE, reply(INFO, UNKNOWN)), "Requested export not available"),
        (
            (*SIMPLE, ONE, reply(INFO, 3, struct.pack(">HIII", 3, 500, 4096, 65536))),
            "server minimum block size 500 is not a power of two",
        ),
        ((*SIMPLE, struct.pack(">QIII", 0x3E889045565A9, LIST, 2, 1 << 31)), None),
    ],
)  # fmt: skip
def test_nonsense_is_refused(fake: Fake, pieces: tuple[bytes, ...], text: str | None) -> None:
    fake.says(*pieces)
    with pytest.raises(ProgramError) as caught:
        main(["-L", "-k", str(fake.path)])
    if text is not None:
        assert str(caught.value) == text
