# SPDX-License-Identifier: Apache-2.0
"""QMP as docs/interop/qmp-spec has it, and in QEMU 11.1's words."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockyard.qmp.version import INTERFACE


def error(desc: str, kind: str = "GenericError", **more: Any) -> dict[str, Any]:
    return {**more, "error": {"class": kind, "desc": desc}}


def test_greeting_says_version_and_capabilities(start: Callable[..., Any]) -> None:
    greeting = start().connect().read()["QMP"]

    assert greeting["capabilities"] == ["oob"]
    assert (
        dict(zip(("major", "minor", "micro"), INTERFACE, strict=True))
        == (greeting["version"]["qemu"])
    )
    assert greeting["version"]["package"].startswith("Blockyard ")


#: What is sent before capabilities are negotiated, and what comes back.
EARLY = [
    (
        '{"execute": "query-version"}',
        error("Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound"),
    ),
    (
        '{"execute": "nix", "id": 5}',
        error(
            "Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound", id=5
        ),
    ),
    ('{"exec-oob": "nix", "id": 5}', error("QMP input member 'exec-oob' is unexpected", id=5)),
    (
        '{"execute": "qmp_capabilities", "arguments": {"enable": ["nix"]}}',
        error("Parameter 'null' does not accept value 'nix'"),
    ),
    (
        '{"execute": "qmp_capabilities", "arguments": {"enable": "oob"}}',
        error("Invalid parameter type for 'enable', expected: array"),
    ),
    (
        '{"execute": "qmp_capabilities", "arguments": {"nix": 1}}',
        error("Parameter 'nix' is unexpected"),
    ),
]

#: What is sent in command mode, and what comes back.
LATE = [
    (
        '{"execute": "qmp_capabilities"}',
        error("Capabilities negotiation is already complete, command ignored", "CommandNotFound"),
    ),
    ("[]", error("QMP input must be a JSON object")),
    ("{}", error("QMP input lacks member 'execute'")),
    ('{"id": 1}', error("QMP input lacks member 'execute'", id=1)),
    ('{"execute": 5}', error("QMP input member 'execute' must be a string")),
    (
        '{"execute": "a", "arguments": []}',
        error("QMP input member 'arguments' must be an object"),
    ),
    (
        '{"execute": "a", "nix": 1, "id": [1]}',
        error("QMP input member 'nix' is unexpected", id=[1]),
    ),
    ('{"execute": "a", "exec-oob": "b"}', error("QMP input member 'exec-oob' is unexpected")),
    ('{"exec-oob": "quit", "id": 1}', error("QMP input member 'exec-oob' is unexpected", id=1)),
    (
        '{"execute": "nix", "id": null}',
        error("The command nix has not been found", "CommandNotFound", id=None),
    ),
    (
        '{"execute": "query-version", "arguments": {"a": 1}}',
        error("Parameter 'a' is unexpected"),
    ),
    ("{'execute': 'qom-get', 'arguments': {}}", error("Parameter 'path' is missing")),
    (
        '{"execute": "object-del", "arguments": {"id": 5}}',
        error("Invalid parameter type for 'id', expected: string"),
    ),
]

#: The same with oob.
OOB = [
    ('{"exec-oob": "quit", "id": 1}', error("The command quit does not support OOB", id=1)),
    (
        '{"exec-oob": "nix", "id": 1}',
        error("The command nix has not been found", "CommandNotFound", id=1),
    ),
    ('{"exec-oob": 5}', error("QMP input member 'exec-oob' must be a string")),
    (
        '{"execute": "a", "exec-oob": "b"}',
        error("QMP input member 'execute' clashes with 'exec-oob'"),
    ),
    (
        '{"exec-oob": "quit", "arguments": 3}',
        error("QMP input member 'arguments' must be an object"),
    ),
]


@pytest.mark.parametrize(("sent", "expected"), EARLY)
def test_negotiation_mode(start: Callable[..., Any], sent: str, expected: Any) -> None:
    client = start().connect()
    client.read()

    assert expected == client.ask(sent)


@pytest.mark.parametrize(("sent", "expected"), LATE)
def test_command_mode(client: Any, sent: str, expected: Any) -> None:
    assert expected == client.ask(sent)
    assert "return" in client.ask('{"execute": "query-version"}')


@pytest.mark.parametrize(("sent", "expected"), OOB)
def test_oob_mode(start: Callable[..., Any], sent: str, expected: Any) -> None:
    client = start().connect().negotiate("oob")

    assert expected == client.ask(sent)


def test_a_real_storage_daemon_says_the_same(qsd: str, tmp_path: Path, peer: Any) -> None:
    for sent, expected in LATE:
        assert expected == peer.ask(sent), sent


def test_pipelined_commands_are_answered_in_order(client: Any) -> None:
    client.send("".join(f'{{"execute": "query-version", "id": {i}}}' for i in range(500)))

    assert list(range(500)) == [client.read()["id"] for _ in range(500)]


def test_a_command_may_be_spread_over_lines_and_packets(client: Any) -> None:
    for part in ('{"exe', 'cute"\n:\r\n "query-', 'version",\t"id"', ': {"a": [1]}\n}'):
        client.send(part)

    assert client.read()["id"] == {"a": [1]}


def test_output_is_ascii_and_ends_with_crlf(client: Any) -> None:
    client.send('{"execute": "nix", "id": "ü\\u20ac"}'.encode())

    line = client.line()
    assert line.endswith(b"\r")
    assert b'"id": "\\u00FC\\u20AC"' in line


def test_pretty_output_has_many_lines(start: Callable[..., Any]) -> None:
    daemon = start(
        "--chardev", "socket,id=p,path=qmp9,server=on,wait=off", "--monitor", "p,pretty=on"
    )
    client = daemon.connect(9)

    assert client.line() == b"{\r"
    assert client.line() == b'    "QMP": {\r'


def test_after_garbage_the_next_command_is_understood(client: Any) -> None:
    client.send('{"execute": "query-version"]\n')
    assert "JSON parse error" in client.read()["error"]["desc"]
    client.send(b"\xff")
    client.read()

    assert client.ask('{"execute": "query-version", "id": 7}')["id"] == 7


def test_oob_lets_eight_commands_wait_and_answers_the_ninth_too(
    start: Callable[..., Any],
) -> None:
    client = start().connect().negotiate("oob")
    client.send("".join(f'{{"execute": "query-version", "id": {i}}}' for i in range(40)))
    client.send('{"exec-oob": "quit", "id": 99}')

    ids = [client.read()["id"] for _ in range(41)]
    assert sorted([*range(40), 99]) == sorted(ids)
    assert list(range(40)) == [i for i in ids if i != 99]


def test_a_new_client_begins_in_negotiation_mode(start: Callable[..., Any]) -> None:
    daemon = start()
    daemon.client().close()

    assert "QMP" in (again := daemon.connect()).read()
    assert again.ask('{"execute": "query-version"}')["error"]["class"] == "CommandNotFound"


def test_qemu_qmp_drives_the_monitor(start: Callable[..., Any], tmp_path: Path) -> None:
    from qemu.qmp import ExecuteError, QMPClient

    daemon = start()
    daemon.connect().close()

    async def drive() -> None:
        qmp = QMPClient("test")
        await qmp.connect(str(tmp_path / "qmp0"))
        version: Any = await qmp.execute("query-version")
        assert version["qemu"]["major"] == INTERFACE[0]
        with pytest.raises(ExecuteError, match="has not been found"):
            await qmp.execute("nix")
        await qmp.execute("object-add", {"qom-type": "iothread", "id": "t0"})
        await qmp.execute("quit")
        with contextlib.suppress(EOFError):
            # The daemon has closed the connection by then, or not.
            await qmp.disconnect()

    asyncio.run(drive())
    assert daemon.wait() == 0


def test_schema_names_every_command(client: Any) -> None:
    schema = client.run("query-qmp-schema")
    commands = {each["name"] for each in schema if each["meta-type"] == "command"}

    assert {each["name"] for each in client.run("query-commands")} == commands
    assert not [each for each in schema if each.get("allow-oob")]
