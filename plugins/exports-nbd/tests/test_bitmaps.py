# SPDX-License-Identifier: Apache-2.0
"""Exports that show dirty bitmaps, to libnbd's and QEMU's clients and to raw ones."""

import json
import os
import shutil
import struct
import subprocess

import pytest

from blockyard.errors import BlockyardError
from blockyard.node import ChildSpec, DriverType, Opened, PythonDriver
from blockyard.permission import Role
from blockyard.schema import struct as schema_struct
from blockyard.schema.block import BlockdevRef
from blockyard_exports_nbd.wire import Mode, Option, Reply

SIZE = 4 << 20
ALLOCATION, DEPTH = "base:allocation", "qemu:allocation-depth"
CHUNKED = [Mode.STRUCTURED, Mode.EXTENDED]
REQ_ONE, PAYLOAD_LEN = 8, 32


def bitmap(name):
    return f"qemu:dirty-bitmap:{name}"


def run(*command):
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refusal(server, *args, **options):
    with pytest.raises(BlockyardError) as caught:
        server.export(*args, **options)
    return str(caught.value)


@pytest.fixture
def shown(bare):
    """``disk`` with the bitmaps ``a`` (512 bytes) and ``b`` (64 KiB), exported as it is."""
    bare.add_nodes()
    bare.listen()
    bare.execute("block-dirty-bitmap-add", node="disk", name="a", granularity=512)
    bare.execute("block-dirty-bitmap-add", node="disk", name="b", granularity=65536)
    bare.export("disk", "plain", writable=True)
    with bare.connect("plain") as client:
        assert client.write(1024, bytes(512)) == 0
        assert client.write(SIZE - 512, bytes(512)) == 0
    bare.execute("block-export-del", id="plain", mode="hard")
    bare.export("disk", writable=True, bitmaps=["a", "b"])
    return bare


A = [(1024, 0), (512, 1), (SIZE - 2048, 0), (512, 1)]
B = [(65536, 1), (SIZE - 2 * 65536, 0), (65536, 1)]


def test_nbdinfo_shows_the_bitmaps(shown):
    [found] = json.loads(run("nbdinfo", "--json", shown.uri()))["exports"]
    assert found["contexts"] == [ALLOCATION, bitmap("a"), bitmap("b")]
    areas = json.loads(run("nbdinfo", "--json", f"--map={bitmap('a')}", shown.uri()))
    assert [(area["length"], area["type"]) for area in areas] == A


def test_qemu_img_maps_a_bitmap(shown):
    options = (
        f"driver=nbd,server.type=unix,server.path={shown.path},export=disk,"
        f"x-dirty-bitmap={bitmap('b')}"
    )
    program = os.environ.get("BLOCKYARD_QEMU_IMG", "qemu-img")
    areas = json.loads(run(program, "map", "--output=json", "--image-opts", options))
    # What is dirty shows as a hole.
    assert [(area["length"], int(not area["data"])) for area in areas] == B


@pytest.mark.parametrize("mode", CHUNKED)
def test_block_status_tells_what_is_dirty_now(shown, mode):
    with shown.connect("disk", mode, [bitmap("b"), bitmap("a")]) as client:
        assert client.status(0, SIZE) == {2: A, 3: B}
        assert client.status(1000, 600) == {2: [(24, 0), (512, 1), (64, 0)], 3: [(600, 1)]}
        assert client.write(65536, b"x" * 512) == 0
        assert client.status(65536, 1024)[2] == [(512, 1), (512, 0)]
        assert client.status(0, 131072)[3] == [(131072, 1)]


@pytest.mark.parametrize("mode", CHUNKED)
def test_bitmaps_beside_the_other_contexts(shown, mode):
    with shown.connect("disk", mode, [ALLOCATION, bitmap("b")]) as client:
        found = client.status(0, 1 << 20)
        assert found == {0: [(1 << 20, 0)], 3: [B[0], ((1 << 20) - 65536, 0)]}


@pytest.mark.parametrize("mode", CHUNKED)
def test_req_one_is_one_extent_of_each(shown, mode):
    with shown.connect("disk", mode, [ALLOCATION, bitmap("a"), bitmap("b")]) as client:
        found = client.status(0, SIZE, REQ_ONE)
        assert found == {0: [(1 << 20, 0)], 2: A[:1], 3: B[:1]}


@pytest.mark.parametrize("mode", CHUNKED)
def test_a_scattered_bitmap_is_told_in_several_answers(shown, mode):
    node = shown.yard.graph.find("disk")
    node.bitmaps["a"].clear()
    node.bitmaps["a"].deserialise(0, b"\x55" * (SIZE // 4096))
    with shown.connect("disk", mode, [bitmap("a")]) as client:
        told, at, answers = [], 0, 0
        while at < SIZE:
            extents = client.status(at, SIZE - at)[2]
            assert 0 < len(extents) <= 4096
            told += extents
            at += sum(length for length, _ in extents)
            answers += 1
    assert (at, answers) == (SIZE, 2)
    assert [dirty for _, dirty in told[:6]] == [1, 0, 1, 0, 1, 0]
    assert sum(length for length, dirty in told if dirty) == SIZE // 2


def test_a_payload_chooses_bitmaps(shown):
    with shown.connect("disk", Mode.EXTENDED, [ALLOCATION, bitmap("a"), bitmap("b")]) as client:
        payload = struct.pack(">QII", SIZE, 3, 2)
        assert client.status(0, len(payload), PAYLOAD_LEN, payload) == {2: A, 3: B}
        for wrong in ((SIZE, 3, 3), (SIZE, 4), (SIZE, 66), (SIZE, 1)):
            payload = struct.pack(f">Q{len(wrong) - 1}I", *wrong)
            with pytest.raises(OSError, match="payload not valid"):
                client.status(0, len(payload), PAYLOAD_LEN, payload)


def test_many_bitmaps_and_a_payload_of_all(bare):
    bare.add_nodes()
    bare.listen()
    names = [f"b{i}" for i in range(63)]
    for i, name in enumerate(names):
        bare.execute("block-dirty-bitmap-add", node="disk", name=name, granularity=4096)
        bare.yard.graph.find("disk").bitmaps[name].mark(i * 4096, 4096)
    text = refusal(bare, "disk", writable=True, bitmaps=names)
    assert text == "export 'disk' has more than 62 bitmaps"
    bare.execute("block-dirty-bitmap-clear", node="disk", name="b0")  # not busy
    bare.export("disk", writable=True, bitmaps=names[1:])
    contexts = [bitmap(name) for name in names[1:]]
    with bare.connect("disk", Mode.EXTENDED, [ALLOCATION, *contexts]) as client:
        found = client.status(0, SIZE)
        assert list(found) == [0, *range(2, 64)]
        for context in range(2, 64):
            assert found[context][:2] == [((context - 1) * 4096, 0), (4096, 1)]
        payload = struct.pack(">Q62I", 4096, *range(63, 1, -1))
        assert client.status(0, len(payload), PAYLOAD_LEN, payload) == {
            context: [(4096, 0)] for context in range(2, 64)
        }
        assert len(client.status(0, SIZE, REQ_ONE)) == 63


QUERIES = [
    [],
    ["qemu:"],
    ["base:"],
    ["qemu:dirty-bitmap:"],
    ["qemu:dirty-bitmap"],
    [bitmap("a")],
    [bitmap("b"), ALLOCATION, bitmap("a"), bitmap("b")],
    [bitmap("c"), bitmap("a") + "x", bitmap("A"), "dirty-bitmap:a"],
    ["qemu:", "base:allocation"],
]


def meta(client, option, queries):
    replies = client.option(option, client.meta_data("disk", *queries))
    assert replies[-1][0] == Reply.ACK
    return [(int.from_bytes(data[:4]), data[4:].decode()) for _, data in replies[:-1]]


def all_answers(client):
    client.negotiate(Mode.STRUCTURED)
    options = (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT)
    return [meta(client, option, queries) for option in options for queries in QUERIES]


def test_contexts_are_listed_and_set(shown):
    with shown.connect() as client:
        listed, chosen = (lambda all_: (all_[:9], all_[9:]))(all_answers(client))
    everything = [ALLOCATION, bitmap("a"), bitmap("b")]
    assert [[name for _, name in found] for found in listed] == [
        everything, everything[1:], everything[:1], everything[1:], [], [bitmap("a")],
        everything, [], everything,
    ]  # fmt: skip
    assert all(number == 0 for found in listed for number, _ in found)
    numbered = list(zip((0, 2, 3), everything, strict=True))
    assert chosen == [[], [], [], [], [], numbered[1:2], numbered, [], numbered[:1]]


def test_contexts_are_qemus(shown, tmp_path):
    program = os.environ.get("BLOCKYARD_QSD") or shutil.which("qemu-storage-daemon")
    if program is None:
        pytest.skip("qemu-storage-daemon is not installed")
    path = tmp_path / "theirs.sock"
    commands = [
        {"execute": "qmp_capabilities"},
        *[
            {
                "execute": "block-dirty-bitmap-add",
                "arguments": {"node": "disk", "name": name},
            }
            for name in ("a", "b")
        ],
        {
            "execute": "block-export-add",
            "arguments": {
                "type": "nbd", "id": "x", "node-name": "disk", "name": "disk",
                "writable": True, "bitmaps": ["a", {"node": "disk", "name": "b"}],
            },
        },
    ]  # fmt: skip
    words = [
        program, "--blockdev", f"null-co,node-name=disk,size={SIZE}", "--nbd-server",
        f"addr.type=unix,addr.path={path}", "--chardev", "stdio,id=c", "--monitor", "c",
    ]  # fmt: skip
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as theirs:
        try:
            theirs.stdin.write("".join(json.dumps(command) for command in commands))
            theirs.stdin.flush()
            replies = [json.loads(theirs.stdout.readline()) for _ in range(5)]
            assert replies[1:] == [{"return": {}}] * 4
            with type(shown.connect())(str(path)) as client, shown.connect() as mine:
                assert all_answers(mine) == all_answers(client)
        finally:
            theirs.terminate()


# -- which bitmaps may be exported


def test_a_bitmap_is_busy_while_it_is_exported(shown):
    def told():
        nodes = shown.execute("query-named-block-nodes", flat=True)
        [found] = [n["dirty-bitmaps"] for n in nodes if n["node-name"] == "disk"]
        return {each["name"]: each["busy"] for each in found}

    assert told() == {"a": True, "b": True}
    busy = "Bitmap 'a' is currently in use by another operation and cannot be used"
    assert refusal(shown, "disk", "other", writable=True, bitmaps=["b", "a"]) == busy.replace(
        "'a'", "'b'"
    )
    with pytest.raises(BlockyardError, match=busy):
        shown.execute("block-dirty-bitmap-remove", node="disk", name="a")
    with shown.connect("disk", Mode.STRUCTURED, [bitmap("a")]) as client:
        assert client.status(0, SIZE) == {2: A}
        shown.execute("block-export-del", id="disk", mode="hard")
        assert client.at_end()
    assert told() == {"a": False, "b": False}
    shown.execute("block-dirty-bitmap-remove", node="disk", name="a")


@pytest.mark.parametrize(
    ("bitmaps", "text"),
    [
        (["c"], "Bitmap 'c' is not found"),
        ([{"node": "disk", "name": "c"}], "Dirty bitmap 'c' not found"),
        ([{"node": "nope", "name": "a"}], "Node 'nope' not found"),
        (["off", "on"], "Enabled bitmap 'on' incompatible with readonly export"),
        (["off", "broken"], "Bitmap 'broken' is inconsistent and cannot be used"),
    ],
)
def test_refused_bitmaps_leave_nothing_behind(bare, bitmaps, text):
    bare.add_nodes()
    bare.listen()
    for name in ("on", "off", "broken"):
        bare.execute("block-dirty-bitmap-add", node="disk", name=name, disabled=name != "on")
    bare.yard.graph.find("disk").bitmaps["broken"].inconsistent = True
    assert refusal(bare, "disk", bitmaps=bitmaps) == text
    assert bare.execute("query-block-exports") == []
    bare.execute("block-dirty-bitmap-remove", node="disk", name="off")


def test_bitmaps_of_other_nodes_are_named_with_them(bare):
    """They need not be disabled, and may have another length."""
    bare.add_nodes()
    bare.listen()
    bare.execute("blockdev-add", driver="null-co", node_name="small", size=65536)
    bare.execute("block-dirty-bitmap-add", node="small", name="a", granularity=4096)
    bare.execute("block-dirty-bitmap-add", node="disk", name="a")
    bare.yard.graph.find("small").bitmaps["a"].mark(61440, 4096)
    outside = {"node": "small", "name": "a"}
    bare.export("disk", bitmaps=[outside, {"node": "disk", "name": "a"}])
    with bare.connect("disk", Mode.EXTENDED, [bitmap("a")]) as client:
        assert client.status(0, SIZE) == {2: [(61440, 0), (4096, 1), (SIZE - 65536, 0)]}
        assert client.status(SIZE - 512, 512) == {2: [(512, 0)]}
    with pytest.raises(BlockyardError, match="^Node small is in use$"):
        bare.execute("blockdev-del", node_name="small")
    bare.execute("block-export-del", id="disk", mode="hard")
    bare.execute("blockdev-del", node_name="small")


def test_a_bitmap_outlives_its_node_as_long_as_it_is_shown(bare):
    """A node that only its parent kept ends with it; clients go on as they were."""
    bare.add_nodes()
    bare.listen()
    inner = {"driver": "null-co", "node-name": "inner", "size": SIZE}
    bare.execute("blockdev-add", driver="raw", node_name="outer", file=inner)
    bare.execute("block-dirty-bitmap-add", node="inner", name="a", granularity=4096)
    bare.yard.graph.find("inner").bitmaps["a"].mark(4096, 4096)
    bare.export("disk", bitmaps=[{"node": "inner", "name": "a"}])
    with bare.connect("disk", Mode.EXTENDED, [bitmap("a")]) as client:
        bare.execute("blockdev-del", node_name="outer")
        assert "inner" not in bare.yard.graph.nodes
        expected = {2: [(4096, 0), (4096, 1), (SIZE - 8192, 0)]}
        assert client.status(0, SIZE) == expected
        with bare.connect("disk", Mode.EXTENDED, [bitmap("a")]) as other:
            assert other.status(0, SIZE) == expected
    bare.execute("block-export-del", id="disk", mode="hard")


@schema_struct
class OptionsAbove:
    """Options of the drivers below."""

    file: BlockdevRef


def above(kind, role):
    class Above(PythonDriver):
        type = DriverType(
            name=f"above-{kind}", kind=kind, options=OptionsAbove, implementation="",
            children=(ChildSpec(name="file", role=role),),
        )  # fmt: skip

        async def open(self):
            return Opened(length=self.node.children["file"].node.length)

        async def read(self, offset, length):
            return await self.child("file").read(offset, length)

    return Above


def test_a_bitmap_is_looked_for_below_filters_only(bare):
    bare.add_nodes()
    bare.listen()
    for kind, role in (("filter", Role.FILTER), ("format", Role.IMAGE)):
        bare.yard.registry.add("drivers", f"above-{kind}", above(kind, role))
        bare.execute(
            "blockdev-add", driver=f"above-{kind}", node_name=kind, file="null", read_only=True
        )
    bare.execute("block-dirty-bitmap-add", node="null", name="a", disabled=True)
    assert refusal(bare, "format", bitmaps=["a"]) == "Bitmap 'a' is not found"
    bare.export("filter", bitmaps=["a"])
    with bare.connect("filter", Mode.EXTENDED, [bitmap("a")]) as client:
        assert client.status(0, 1 << 40) == {2: [(1 << 40, 0)]}


def test_nbd_server_add_shows_one_bitmap(bare):
    bare.add_nodes()
    bare.listen()
    bare.execute("block-dirty-bitmap-add", node="disk", name="a")
    with pytest.raises(BlockyardError, match="^Bitmap 'b' is not found$"):
        bare.execute("nbd-server-add", device="disk", writable=True, bitmap="b")
    bare.execute("nbd-server-add", device="disk", writable=True, bitmap="a")
    with bare.connect("disk", Mode.STRUCTURED, [bitmap("a")]) as client:
        assert client.status(0, SIZE) == {2: [(SIZE, 0)]}
