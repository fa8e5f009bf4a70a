# SPDX-License-Identifier: Apache-2.0
"""What is said of wrong input: QEMU's sentences, recorded and compared with a real daemon.

``schema_errors.json`` holds what qemu-storage-daemon 11.1 answered; the mutations that
made it run against a daemon again where one is on PATH (or named by BLOCKYARD_QSD).
"""

import copy
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blockyard.errors import InvalidOption
from blockyard.schema import Size, Uint16, Uint32, Uint64, check, shape, struct, visit_text
from blockyard.schema.block import (
    BlockdevCreateOptions,
    BlockdevOptions,
    BlockdevOptionsGenericFormat,
    BlockdevRefOrNull,
    OnOffAuto,
    PreallocMode,
    StrOrNull,
)
from blockyard.schema.chardev import ChardevBackend
from blockyard.schema.control import MonitorOptions
from blockyard.schema.export import (
    BlockDirtyBitmapOrStr,
    BlockExportOptions,
    BlockExportRemoveMode,
)
from blockyard.schema.qom import IothreadProperties, ObjectOptions
from blockyard.schema.sockets import SocketAddress, SocketAddressLegacy
from blockyard.schema.throttle import ThrottleGroupProperties

QSD = os.environ.get("BLOCKYARD_QSD") or shutil.which("qemu-storage-daemon")
RECORDED = json.loads(Path(__file__).with_name("schema_errors.json").read_text())


@struct
class FileOptions:
    filename: str
    pr_manager: str | None = None
    locking: OnOffAuto | None = None
    aio: str | None = None
    aio_max_batch: int | None = None
    drop_cache: bool | None = None


@struct
class NullOptions:
    size: int | None = None
    latency_ns: Uint64 | None = None
    read_zeroes: bool | None = None


@struct
class RawOptions(BlockdevOptionsGenericFormat):
    offset: int | None = None
    size: int | None = None


@struct
class Qcow2Options(BlockdevOptionsGenericFormat):
    backing: BlockdevRefOrNull | None = None
    l2_cache_size: int | None = None


@struct
class NbdOptions:
    server: SocketAddress
    export: str | None = None
    reconnect_delay: Uint32 | None = None


@struct
class NbdExport:
    name: str | None = None
    description: str | None = None
    bitmaps: list[BlockDirtyBitmapOrStr] | None = None
    allocation_depth: bool | None = None


@struct
class VhostExport:
    addr: SocketAddress
    logical_block_size: Size | None = None
    num_queues: Uint16 | None = None


@struct
class FileCreate:
    filename: str
    size: Size
    preallocation: PreallocMode | None = None
    nocow: bool | None = None
    extent_size_hint: Size | None = None


@struct
class ChardevAdd:
    id: str
    backend: ChardevBackend


@struct
class BlockdevCreate:
    job_id: str
    options: BlockdevCreateOptions


@struct
class NbdServerStart:
    handshake_max_seconds: Uint32 | None = None
    tls_creds: str | None = None
    tls_authz: str | None = None
    max_connections: Uint32 | None = None
    addr: SocketAddressLegacy


@struct
class BlockResize:
    device: str | None = None
    node_name: str | None = None
    size: int


@struct
class BlockdevReopen:
    options: list[BlockdevOptions]


@struct
class SetWriteThreshold:
    node_name: str
    write_threshold: Uint64


@struct
class SetIothread:
    node_name: str
    iothread: StrOrNull
    force: bool | None = None


@struct
class BlockExportDel:
    id: str
    mode: BlockExportRemoveMode | None = None


@struct
class QomSet:
    path: str
    property: str
    value: Any


COMMANDS = {
    "blockdev-add": BlockdevOptions,
    "nbd-server-start": NbdServerStart,
    "block-export-add": BlockExportOptions,
    "object-add": ObjectOptions,
    "chardev-add": ChardevAdd,
    "blockdev-create": BlockdevCreate,
    "block_resize": BlockResize,
    "blockdev-reopen": BlockdevReopen,
    "block-set-write-threshold": SetWriteThreshold,
    "x-blockdev-set-iothread": SetIothread,
    "block-export-del": BlockExportDel,
    "qom-set": QomSet,
}
OPTIONS = {
    "--blockdev": (BlockdevOptions, "driver"),
    "--export": (BlockExportOptions, "type"),
    "--object": (ObjectOptions, "qom-type"),
    "--monitor": (MonitorOptions, "chardev"),
}
BRANCHES = {
    "BlockdevOptions": {
        "file": FileOptions,
        "null-co": NullOptions,
        "raw": RawOptions,
        "qcow2": Qcow2Options,
        "nbd": NbdOptions,
    },
    "BlockExportOptions": {"nbd": NbdExport, "vhost-user-blk": VhostExport},
    "BlockdevCreateOptions": {"file": FileCreate},
    "ObjectOptions": {"iothread": IothreadProperties, "throttle-group": ThrottleGroupProperties},
}

# Each passes the visitor and fails after it, so that nothing is ever made.
SAMPLES = RECORDED["samples"]
WRONG: list[Any] = [
    *(None, True, 7, -1, 1.5, 2**64, 2**63, 300, 70000, 2**33),
    *("text", "", [], ["x"], {}, {"zz": 1}, [1, None]),
]
VISITORS_SENTENCE = re.compile(
    r"is missing$|is unexpected$|^Invalid parameter type|does not accept value"
    r"|expects (u?int|size|number)"
)


class Source:
    """The branches above, as a registry would give them."""

    def __init__(self, options: dict[str, type]) -> None:
        self._options = options

    def names(self) -> list[str]:
        return list(self._options)

    def options(self, name: str) -> type | None:
        return self._options.get(name)

    def hint(self, name: str) -> str:
        return ""


@pytest.fixture(autouse=True)
def branches(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {union: Source(options) for union, options in BRANCHES.items()}
    monkeypatch.setattr(shape, "_sources", sources)


def said_of(annotation: Any, value: Any) -> str | None:
    try:
        check(annotation, value)
    except InvalidOption as error:
        return str(error)
    return None


@pytest.mark.parametrize("command", COMMANDS)
def test_errors_are_those_that_qemu_gave(command: str) -> None:
    table = [row for row in RECORDED["commands"] if row[0] == command]
    assert table
    said = [[command, value, said_of(COMMANDS[command], value)] for _, value, _ in table]

    assert table == said


@pytest.mark.parametrize("option", OPTIONS)
def test_command_line_errors_are_those_that_qemu_gave(option: str) -> None:
    table = [row for row in RECORDED["options"] if row[0] == option]
    assert table
    said = []
    for _, text, _ in table:
        with pytest.raises(InvalidOption) as error:
            visit_text(OPTIONS[option][0], text, OPTIONS[option][1])
        said.append([option, text, str(error.value)])

    assert table == said


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def mutations(sample: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The sample with each value replaced by all kinds of others, left out, and added to."""
    for path in places(sample):
        changed = copy.deepcopy(sample)
        where: Any = changed
        for key in path[:-1]:
            where = where[key]
        for wrong in WRONG if path else ():
            where[path[-1]] = wrong
            yield copy.deepcopy(changed)
        if path and isinstance(where, dict):
            del where[path[-1]]
            yield changed
        grown = copy.deepcopy(sample)
        where = grown
        for key in path:
            where = where[key]
        if isinstance(where, dict):
            where["bogus"] = 1
            yield grown


class Daemon:
    """A real qemu-storage-daemon with a monitor on its standard streams."""

    def __init__(self, program: str) -> None:
        self._process = subprocess.Popen(
            [program, "--chardev", "stdio,id=m", "--monitor", "m"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.version = self.read()["QMP"]["version"]["qemu"]["major"]
        self.run("qmp_capabilities", {})

    def read(self) -> dict[str, Any]:
        assert self._process.stdout
        while "event" in (message := json.loads(self._process.stdout.readline())):
            pass
        return dict(message)

    def run(self, command: str, arguments: Any) -> str | None:
        assert self._process.stdin
        message = {"execute": command, "arguments": arguments}
        self._process.stdin.write(json.dumps(message).encode())
        self._process.stdin.flush()
        return self.read().get("error", {}).get("desc")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    if not QSD:
        pytest.skip("no qemu-storage-daemon here")
    made = Daemon(QSD)
    yield made
    made.close()


def differences(
    command: str, values: Iterable[dict[str, Any]], daemon: Daemon
) -> list[tuple[Any, str | None, str | None]]:
    """Where the daemon's visitor says something else than ours."""
    found = []
    for value in values:
        if command == "blockdev-reopen" and value.get("options") == []:
            continue  # QEMU aborts
        ours, theirs = said_of(COMMANDS[command], value), daemon.run(command, value)
        if ours != theirs and (ours or VISITORS_SENTENCE.search(theirs or "")):
            found.append((value, ours, theirs))
    return found


def skip_if_newer(sample: dict[str, Any], daemon: Daemon) -> None:
    if daemon.version < 11 and isinstance(sample.get("iothread"), list):
        pytest.skip("block-export-add takes several iothreads since QEMU 11")
    if daemon.version < 10 and "addr" in sample:
        pytest.skip("nbd-server-start takes handshake-max-seconds since QEMU 10")


@pytest.mark.parametrize(("command", "sample"), SAMPLES)
def test_errors_equal_a_real_daemons(command: str, sample: dict[str, Any], daemon: Daemon) -> None:
    skip_if_newer(sample, daemon)

    assert differences(command, mutations(sample), daemon) == []


def twisted(sample: dict[str, Any], source: random.Random) -> dict[str, Any]:
    """The sample with several things wrong."""
    for _ in range(source.randint(2, 4)):
        sample = source.choice(list(mutations(sample)))
    return sample | {source.choice(["zz", "id", "type", "size"]): source.choice(WRONG)}


@pytest.mark.parametrize(("command", "sample"), SAMPLES)
def test_of_several_errors_the_same_is_named(
    command: str, sample: dict[str, Any], daemon: Daemon
) -> None:
    skip_if_newer(sample, daemon)
    source = random.Random(command)
    values = [twisted(sample, source) for _ in range(50)]

    assert differences(command, values, daemon) == []


@pytest.mark.parametrize("count", [2, 3, 5, 7, 8, 12, 40])
def test_of_several_unexpected_members_the_same_is_named(count: int, daemon: Daemon) -> None:
    source = random.Random(count)
    for _ in range(30):
        names = ["".join(source.choices("abcxyz-_", k=source.randint(1, 9))) for _ in range(count)]
        value = {"driver": "null-co", "node-name": "1", **dict.fromkeys(names, 1)}
        value["size"] = 1

        assert daemon.run("blockdev-add", value) == said_of(BlockdevOptions, value)
