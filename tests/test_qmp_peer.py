# SPDX-License-Identifier: Apache-2.0
"""QMP of blockyard-daemon and of a real qemu-storage-daemon, side by side.

Both are sent the same bytes, good and damaged, and must answer the same.  QEMU's
sentences of damaged JSON name line and column since 11.1, so that one is needed:
BLOCKYARD_QSD, or on PATH.
"""

import json
import os
import random
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

QSD = os.environ.get("BLOCKYARD_QSD") or shutil.which("qemu-storage-daemon")
OURS = Path(sysconfig.get_path("scripts")) / "blockyard-daemon"
MARK = b'\xff\n{"execute":"query-version","id":"mark"}'
ROUNDS = 400

DAMAGED = [bytes([byte]) for byte in b"{}[]:,-0123 \n\t\r\\\"'%@\x00\x7f\xff"]
DAMAGED += [b"tru", b"null", b"1.5", b"1e5", b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\xc3\xa9"']
DAMAGED += [b'"\xed\xa0\x80"', b"'a\\''", b'{"a":1,"a":2}', b"9" * 30, b"[[[", b"{}", b"[]"]


def said(command: str, arguments: object = None, **extra: object) -> bytes:
    message: dict[str, object] = {"execute": command, **extra}
    if arguments is not None:
        message["arguments"] = arguments
    return json.dumps(message).encode()


COMMANDS = [
    said("nonesuch"),
    said("nonesuch", id="x"),
    said("query-jobs", id=[1, {"a": None}]),
    said("query-jobs", 3),
    said("query-jobs", {"x": 1}),
    said("query-jobs", surplus=1),
    said("query-block-exports"),
    said("query-named-block-nodes", {"flat": 1}),
    said("qmp_capabilities"),
    said("blockdev-add", {"driver": "nonesuch"}),
    said("blockdev-add", {"driver": "null-co"}),
    said("blockdev-add", {"driver": "null-co", "node-name": "1"}),
    said("blockdev-add", {"driver": "raw", "node-name": "n"}),
    said("blockdev-add", {"driver": "raw", "node-name": "n", "file": "nonesuch"}),
    said("blockdev-add", {"driver": "file", "node-name": "n", "filename": "/nonesuch"}),
    said("blockdev-del", {"node-name": "nonesuch"}),
    said("block_resize", {"node-name": "nonesuch", "size": 1}),
    said("block-export-add", {"type": "nbd", "id": "e", "node-name": "nonesuch"}),
    said("block-export-del", {"id": "nonesuch"}),
    said("object-add", {"qom-type": "nonesuch", "id": "o"}),
    said("object-del", {"id": "nonesuch"}),
    said("job-dismiss", {"id": "nonesuch"}),
    said("chardev-remove", {"id": "nonesuch"}),
    b'{"exec-oob": "query-jobs"}',
    b'{"execute": "query-jobs", "exec-oob": "query-jobs"}',
    b'{"execute": 3}',
    b'{"arguments": {}}',
    b'{"id": 3}',
]


class Monitor:
    """A daemon with a monitor on its standard streams."""

    def __init__(self, program: str) -> None:
        self._process = subprocess.Popen(
            [program, "--chardev", "stdio,id=m", "--monitor", "m"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        greeting = self._read()["QMP"]["version"]["qemu"]
        self.version = (greeting["major"], greeting["minor"])
        self.answers(b'{"execute":"qmp_capabilities"}\n')

    def _read(self) -> dict[str, object]:
        line = self._process.stdout.readline()
        assert line, "the daemon is gone"
        return json.loads(line)

    def answers(self, data: bytes) -> list[dict[str, object]]:
        """What is answered to ``data``; the mark after it ends the waiting."""
        self._process.stdin.write(data + MARK)
        self._process.stdin.flush()
        found = []
        while (answer := self._read()).get("id") != "mark":
            found.append(answer)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def monitors():
    if not QSD:
        pytest.skip("no qemu-storage-daemon here")
    theirs = Monitor(QSD)
    ours = Monitor(str(OURS))
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("seed", range(3))
def test_any_bytes_are_answered_as_qemu_does(monitors, seed: int) -> None:
    ours, theirs = monitors
    if theirs.version < (11, 1):
        pytest.skip("before 11.1 QEMU's sentences named no line and column")
    source = random.Random(seed)
    for _ in range(ROUNDS):
        pieces = source.choices(DAMAGED + COMMANDS, k=source.randint(1, 8))
        data = b"".join(pieces)

        assert (data, theirs.answers(data)) == (data, ours.answers(data))


def test_commands_are_answered_as_qemu_does(monitors) -> None:
    ours, theirs = monitors
    for data in COMMANDS:
        found, expected = ours.answers(data), theirs.answers(data)
        for answers in (found, expected):
            del answers[1:]  # the mark's own damage, which older QEMUs word otherwise

        assert (data, expected) == (data, found)
