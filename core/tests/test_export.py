# SPDX-License-Identifier: Apache-2.0
"""Exports: what all of them have in common."""

from typing import Any

import anyio
import pytest

from blockyard.errors import BlockyardError, Busy
from blockyard.export import Export, ExportType
from blockyard.loop import Loop, LoopParams
from blockyard.plugins import Registry
from blockyard.schema import visit
from blockyard.schema.block import BlockdevOptions
from blockyard.schema.export import BlockExportOptions
from blockyard.yard import Yard

pytestmark = pytest.mark.anyio


class Window(Export):
    """An export whose clients are numbers."""

    type = ExportType(
        name="window", options=None, implementation="", supports_inactive=True, title="Window"
    )
    fail_start = False

    async def start(self) -> None:
        if self.fail_start:
            raise BlockyardError("start refused")
        self.clients = 0
        self.closing = anyio.Event()
        self.moved: list[Loop] = []

    async def shutdown(self) -> None:
        while self.clients:
            await self.closing.wait()
            self.clients -= 1

    def in_use(self) -> bool:
        return self.clients > 0

    async def home_changed(self, home: Loop) -> None:
        self.moved.append(home)


class Wide(Window):
    """One that can be served by several loops, and whose clients see a new length."""

    type = ExportType(
        name="wide", options=None, implementation="", multithreaded=True, shares_resize=True
    )


@pytest.fixture
def registry(registry: Registry) -> Registry:
    for export in (Window, Wide):
        declaration = ExportType(
            name=export.type.name,
            options=None,
            implementation=export,
            supports_inactive=export.type.supports_inactive,
            multithreaded=export.type.multithreaded,
            shares_resize=export.type.shares_resize,
            title=export.type.title,
        )
        registry.add("exports", declaration.name, declaration)
    return registry


@pytest.fixture
async def disk(yard: Yard) -> Any:
    return await yard.graph.add(visit(BlockdevOptions, {"driver": "mem", "node-name": "disk"}))


def options(export_id: str = "e", **more: Any) -> Any:
    fields = {"type": "window", "id": export_id, "node-name": "disk", **more}
    return visit(BlockExportOptions, fields)


@pytest.fixture
def deleted(yard: Yard) -> list[str]:
    told: list[str] = []

    def note(message: Any) -> None:
        if message["event"] == "BLOCK_EXPORT_DELETED":
            told.append(message["data"]["id"])

    yard.events.subscribe(note)
    return told


async def refused(yard: Yard, text: str, **more: Any) -> None:
    """The export is refused with this text, and nothing is left of it."""
    before = [export.id for export in yard.exports], len(yard.graph.roots())
    with pytest.raises(BlockyardError) as caught:
        await yard.exports.add(options(**more))
    assert str(caught.value) == text
    assert ([export.id for export in yard.exports], len(yard.graph.roots())) == before


async def test_exports_come_newest_first_and_go(yard: Yard, disk: Any, deleted: list[str]) -> None:
    await yard.exports.add(options("a"))
    await yard.exports.add(options("b"))
    assert [export.id for export in yard.exports] == ["b", "a"]

    await yard.exports.delete("a")
    assert deleted == ["a"]
    assert [export.id for export in yard.exports] == ["b"]


async def test_what_cannot_be_exported_is_refused(yard: Yard, disk: Any) -> None:
    await yard.exports.add(options("e"))
    reader = {"driver": "mem", "node-name": "ro", "read-only": True}
    await yard.graph.add(visit(BlockdevOptions, reader))

    for text, more in {
        "Invalid block export id": {"export_id": "#e"},
        "Block export id 'e' is already in use": {},
        "Cannot find device='' nor node-name='nope'": {"export_id": "x", "node-name": "nope"},
        "Cannot export read-only node as writable": {
            "export_id": "x",
            "node-name": "ro",
            "writable": True,
        },
        'iothread "io" not found': {"export_id": "x", "iothread": "io"},
        "The set of I/O threads must not be empty": {"export_id": "x", "iothread": []},
    }.items():
        await refused(yard, text, **more)


async def test_iothreads_as_one_or_several(yard: Yard, disk: Any) -> None:
    io0, io1 = (yard.loops.add(name, LoopParams()) for name in ("io0", "io1"))
    await refused(
        yard,
        "Cannot use fixed-iothread for a multi-threaded export",
        **{"iothread": ["io0"], "fixed-iothread": True},
    )
    await refused(yard, "Window export does not support multi-threading", iothread=["io0", "io1"])

    one = await yard.exports.add(options("one", **{"iothread": "io0", "fixed-iothread": True}))
    assert (one.loops, disk.home) == ((io0,), io0)
    await refused(
        yard,
        "Cannot change iothread of active block backend",
        **{"export_id": "two", "iothread": "io1", "fixed-iothread": True},
    )
    two = await yard.exports.add(options("two", iothread="io1"))
    assert two.loops == (io0,)
    await yard.exports.delete("one")
    await yard.graph.move(disk, io1)
    assert two.moved == [io1]  # type: ignore[attr-defined]
    wide = await yard.exports.add(options("wide", type="wide", iothread=["io0", "io1"]))
    assert wide.loops == (io0, io1)
    with pytest.raises(Busy):
        await yard.loops.remove("io0")
    await yard.exports.close()
    await yard.loops.remove("io0")


async def test_clients_keep_an_export_unless_it_is_deleted_hard(
    yard: Yard, disk: Any, deleted: list[str]
) -> None:
    export: Any = await yard.exports.add(options("e"))
    export.clients = 1
    with pytest.raises(Busy, match="^export 'e' still in use$"):
        await yard.exports.delete("e")
    with anyio.fail_after(5):
        await yard.exports.delete("e", hard=True)

    assert export.shutting_down
    assert deleted == []
    with pytest.raises(Busy, match="^Export 'e' is already shutting down$"):
        await yard.exports.delete("e", hard=True)
    export.closing.set()
    with anyio.fail_after(5):
        while not deleted:
            await anyio.sleep(0.001)
    with pytest.raises(BlockyardError, match="^Export 'e' is not found$"):
        await yard.exports.delete("e")


async def test_a_failed_start_leaves_nothing(yard: Yard, disk: Any) -> None:
    Window.fail_start = True
    try:
        await refused(yard, "start refused")
    finally:
        Window.fail_start = False
    assert not disk.parents


async def test_writers_are_kept_apart_from_resizing(yard: Yard, disk: Any) -> None:
    await yard.exports.add(options("e", writable=True))
    with pytest.raises(Busy, match="permissions 'resize' are both required"):
        await yard.graph.resize(disk, 4096)
    await yard.exports.close()
    await yard.graph.resize(disk, 4096)


async def test_an_export_may_let_others_resize(yard: Yard, disk: Any) -> None:
    await yard.exports.add(options(type="wide", writable=True))
    await yard.graph.resize(disk, 4096)
    assert disk.length == 4096


async def test_inactive_nodes_are_woken_or_accepted(yard: Yard, disk: Any) -> None:
    await yard.graph.set_active(disk, False)
    sleeping = await yard.exports.add(options("s", **{"allow-inactive": True}))
    assert not disk.active
    await refused(
        yard,
        "Export type does not support inactive exports",
        **{"export_id": "w", "type": "wide", "allow-inactive": True},
    )
    await yard.exports.add(options("e"))
    assert disk.active
    assert not sleeping.shutting_down


async def test_a_read_only_export_cannot_write(yard: Yard, disk: Any) -> None:
    export = await yard.exports.add(options("e"))
    with pytest.raises(OSError, match="Operation not permitted"):
        await export.root.access.write(0, b"x")
