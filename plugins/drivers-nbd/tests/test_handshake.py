# SPDX-License-Identifier: Apache-2.0
"""What servers may say before transmission, and what is said of it: QEMU's words."""

import struct
import subprocess

import anyio
import pytest
from mock_server import (
    MAGIC,
    OPTION,
    SIZE,
    STRUCTURED,
    MockServer,
    ack,
    blocks,
    context,
    export,
    go,
    reply,
)

from blockyard.errors import BlockyardError
from blockyard.schema import visit
from blockyard.schema.qom import ObjectOptions
from blockyard.yard import Yard

ZEROES = bytes(124)
OLD = MAGIC + bytes.fromhex("0000420281861253")

#: What a server sends without listening, and the error; the export has a name.
STREAMS = {
    "nothing": b"",
    "half a magic": MAGIC[:4],
    "another magic": b"abcdefgh" + OPTION,
    "one magic": MAGIC,
    "another second magic": MAGIC + b"ABCDEFGH",
    "no flags": MAGIC + OPTION,
    "old style": OLD + struct.pack(">QI", SIZE, 0) + ZEROES,
}

#: Answers to options that end in an error.
REFUSED = {
    "magic": {11: reply(11, 1, magic=5)},
    "option": {11: reply(10, 1)},
    "hang up": {11: b""},
    "extended with data": {11: reply(11, 1, b"abc")},
    "extended by information": {11: reply(11, 3, b"abc")},
    "long error": {11: reply(11, 0x80000002, b"", length=1 << 31)},
    "no export": {1: b""},
    "tls": {7: reply(7, 0x80000005)},
    "tls, with a text": {7: reply(7, 0x80000005, b"hello")},
    "policy": {7: reply(7, 0x80000002, b"no, no")},
    "platform": {7: reply(7, 0x80000004)},
    "invalid": {7: reply(7, 0x80000003)},
    "unknown": {7: reply(7, 0x80000006)},
    "unknown, in lines": {7: reply(7, 0x80000006, b"one\ntwo")},
    "shutdown": {7: reply(7, 0x80000007, b"bye")},
    "block size required": {7: reply(7, 0x80000008)},
    "too big": {7: reply(7, 0x80000009)},
    "an error of tomorrow": {7: reply(7, 0x80001234, b"m")},
    "no information": {7: ack(7)},
    "no flags": {7: go(export(flags=0))},
    "ack with data": {7: reply(7, 3, export()) + reply(7, 1, b"a")},
    "server for information": {7: reply(7, 2, b"aaaa")},
    "a reply of tomorrow": {7: reply(7, 1000)},
    "short information": {7: reply(7, 3, b"a")},
    "short export": {7: reply(7, 3, b"\0\0abc")},
    "long export": {7: reply(7, 3, export() + b"abc")},
    "short blocks": {7: go(export(), b"\0\3abc")},
    "minimum 0": {7: go(export(), blocks(0, 4096, 1 << 25))},
    "minimum 3": {7: go(export(), blocks(3, 4096, 1 << 25))},
    "preferred 3": {7: go(export(), blocks(1, 3, 1 << 25))},
    "preferred below": {7: go(export(), blocks(4096, 512, 1 << 25))},
    "maximum below": {7: go(export(), blocks(4096, 4096, 512))},
    "maximum 0": {7: go(export(), blocks(1, 4096, 0))},
    "a part of a block": {7: go(blocks(4096, 4096, 1 << 25), export(size=SIZE + 512))},
    "too long": {7: go(export(size=(1 << 63) - 512))},
    "short context": STRUCTURED | {10: reply(10, 4, b"abc") + ack(10)},
    "another context": STRUCTURED | {10: context(b"foo:bar")},
    "two contexts": STRUCTURED | {10: context()[:-20] + context()},
    "information for a context": STRUCTURED | {10: reply(10, 3, b"no")},
    "context with data": STRUCTURED | {10: reply(10, 1, b"no")},
    "long context": STRUCTURED | {10: reply(10, 4, b"a", length=1 << 30)},
}

#: Answers that are good enough, if odd.
ACCEPTED = {
    "no options": {},
    "only the name": {1: struct.pack(">QH", SIZE, 1)},
    "extended refused": {11: reply(11, 0x80000002, b"sorry"), 7: go()},
    "structured refused": {8: reply(8, 0x80000003, b"sorry"), 7: go()},
    "context refused": STRUCTURED | {10: reply(10, 0x80000002, b"no")},
    "no context": STRUCTURED | {10: ack(10)},
    "large blocks": {7: go(export(), blocks(1 << 17, 1 << 17, 1 << 25))},
    "uneven maximum": {7: go(export(), blocks(4096, 4096, 5000))},
    "more information": {
        7: go(b"\0\1name", b"\0\2text", *[b"\0\x4d" + bytes(1000)] * 300, export())
    },
}


async def _text(options):
    """The error of opening, as people read it; None if there is none."""
    async with Yard() as yard:
        try:
            image = await yard.open({**options, "read-only": True})
        except BlockyardError as error:
            return "\n".join(filter(None, (str(error), error.hint)))
        async with image:
            assert image.length == SIZE
        return None


def _qemu_text(server, name):
    uri = f"nbd+unix:///{name}?socket={server.path}"
    words = ["qemu-img", "info", "-f", "raw", uri]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    return done.stderr.removeprefix(f"qemu-img: Could not open '{uri}': ").strip() or None


def _compare(server, name="x"):
    found = anyio.run(_text, server.options(export=name))
    assert found == _qemu_text(server, name)
    return found


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_is_no_handshake_is_refused_as_qemu_does(tmp_path, name):
    with MockServer(tmp_path / "s", raw=STREAMS[name]) as server:
        assert _compare(server) is not None


@pytest.mark.parametrize("name", REFUSED)
def test_answers_are_refused_as_qemu_does(tmp_path, name):
    with MockServer(tmp_path / "s", REFUSED[name]) as server:
        assert _compare(server) is not None


@pytest.mark.parametrize("name", [name for name in ACCEPTED if name != "no options"])
def test_odd_answers_are_accepted_as_qemu_does(tmp_path, name):
    with MockServer(tmp_path / "s", ACCEPTED[name]) as server:
        assert _compare(server) is None


def test_a_server_without_fixed_newstyle_is_asked_by_name_at_once(tmp_path):
    answers = {1: struct.pack(">QH", SIZE, 1) + ZEROES}
    with MockServer(tmp_path / "s", answers, flags=0) as server:
        assert _compare(server) is None


def test_the_oldest_servers_have_an_export_without_a_name(tmp_path):
    raw = OLD + struct.pack(">QI", SIZE, 1) + ZEROES
    with MockServer(tmp_path / "s", raw=raw) as server:
        assert anyio.run(_text, server.options()) is None


def test_a_server_that_sends_without_an_end_is_left(tmp_path):
    endless = reply(7, 3, b"\0\x4d" + bytes(4000)) * 5000
    with MockServer(tmp_path / "s", {7: endless + go()}) as server:
        found = anyio.run(_text, server.options())
        assert "without an end" in found


def test_a_part_of_a_block_is_refused_in_either_order(tmp_path):
    with MockServer(
        tmp_path / "s", {7: go(export(size=SIZE + 512), blocks(4096, 4096, 1 << 25))}
    ) as server:
        found = anyio.run(_text, server.options())
    assert found == f"export size {SIZE + 512} is not multiple of minimum block size 4096"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"export": "e" * 4097}, "export name too long to send to server"),
        ({"x-dirty-bitmap": "b" * 4097}, "x-dirty-bitmap query too long to send to server"),
        ({"tls-creds": "t"}, "No TLS credentials with id 't'"),
        ({"x-dirty-bitmap": "qemu:dirty-bitmap:b"}, "Could not open image: Invalid argument"),
        ({"read-only": False}, "Could not open image: Permission denied"),
    ],
)
def test_options_that_cannot_be_served(tmp_path, options, text):
    async def run(server):
        async with Yard() as yard:
            with pytest.raises(BlockyardError) as caught:
                await yard.open({**server.options(), **options})
            assert str(caught.value) == text

    with MockServer(tmp_path / "s", {7: go(export(flags=3))}) as server:
        anyio.run(run, server)
        assert all(not command.type for command in server.commands)


def test_auto_read_only_opens_what_the_server_serves_read_only(tmp_path):
    async def run(server):
        async with (
            Yard() as yard,
            await yard.open({**server.options(), "auto-read-only": True}) as image,
        ):
            assert image.read_only

    with MockServer(tmp_path / "s", {7: go(export(flags=3))}) as server:
        anyio.run(run, server)


def test_other_objects_are_no_credentials(tmp_path):
    async def run(server):
        async with Yard() as yard:
            secret = {"qom-type": "secret", "id": "s", "data": "x"}
            await yard.objects.add(visit(ObjectOptions, secret))
            with pytest.raises(BlockyardError, match="^Object with id 's' is not TLS credentials$"):
                await yard.open(server.options(**{"tls-creds": "s"}))

    with MockServer(tmp_path / "s") as server:
        anyio.run(run, server)
