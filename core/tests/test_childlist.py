# SPDX-License-Identifier: Apache-2.0
"""Children that come and go while their parent is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from blockyard.errors import BlockyardError, Busy, InvalidOption, PermissionConflict
from blockyard.node import Child, ChildSpec, DriverType, Node, Opened, PythonDriver
from blockyard.permission import Perm, Role
from blockyard.qmp.dispatcher import Dispatcher
from blockyard.schema import struct, visit
from blockyard.schema.block import BlockdevOptions, BlockdevRef

if TYPE_CHECKING:
    from blockyard.plugins import Registry
    from blockyard.request import RequestFlags
    from blockyard.yard import Yard

pytestmark = pytest.mark.anyio


@struct
class OptionsRow:
    """Options of the driver below."""

    #: Its nodes.
    parts: list[BlockdevRef]
    #: Which permissions it wants on them.
    writes: bool | None = None


class RowDriver(PythonDriver):
    """Reads as a byte for each of its children, that child's first."""

    list_changes = True
    type = DriverType(
        name="row",
        kind="filter",
        options=OptionsRow,
        implementation="",
        children=(ChildSpec(name="parts", role=Role.DATA, many=True),),
    )

    def __init__(self, options: Any, node: Any) -> None:
        super().__init__(options, node)
        self.changes: list[tuple[str | None, str | None]] = []
        self.next = len(options.parts)

    async def open(self) -> Opened:
        return Opened(length=16)

    async def read(self, offset: int, length: int) -> bytes:
        found = [await self.child(name).read(0, 1) for name in self.node.children]
        return b"".join(found).ljust(16, b".")[offset : offset + length]

    async def write(self, offset: int, view: memoryview, flags: RequestFlags) -> None:
        for name in self.node.children:
            await self.child(name).write(offset, bytes(view))

    def child_permissions(self, child: Child, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        return perm | (Perm.WRITE if self.options.writes else Perm(0)), shared

    def new_child_name(self, node: Node) -> str:
        return f"parts.{self.next}"

    def check_child_leaves(self, child: Child) -> None:
        if len(self.node.children) == 1:
            raise InvalidOption("The last one stays")

    def child_list_changed(self, joined: str | None, left: str | None) -> None:
        self.changes.append((joined, left))
        self.next += joined is not None


@pytest.fixture
def registry(registry: Registry) -> Registry:
    registry.add("drivers", "row", RowDriver)
    return registry


async def add(yard: Yard, driver: str, name: str, **more: Any) -> Node:
    options = {key.replace("_", "-"): value for key, value in more.items()}
    tree = {"driver": driver, "node-name": name, **options}
    return await yard.graph.add(visit(BlockdevOptions, tree))


async def letters(yard: Yard, names: str, **more: Any) -> None:
    """Nodes of one letter, which is what they hold."""
    for name in names:
        node = await add(yard, "mem", name, size=16, **more)
        node.driver.memory[:] = name.encode() * 16


async def change(yard: Yard, **arguments: str) -> None:
    dispatcher = Dispatcher(yard, yard.registry)
    await dispatcher.execute("x-blockdev-change", {"parent": "row", **arguments})


async def text(node: Node) -> bytes:
    async with node.graph.carrier.inside(node) as access:
        return (await access.read(0, 16)).rstrip(b".")


async def test_children_come_and_go(yard: Yard) -> None:
    await letters(yard, "abcd")
    row = await add(yard, "row", "row", parts=["a", "b"])
    assert await text(row) == b"ab"

    await change(yard, node="c")
    await change(yard, node="d")
    assert await text(row) == b"abcd"

    await change(yard, child="parts.1")
    await change(yard, child="parts.3")
    assert await text(row) == b"ac"

    await change(yard, node="b")
    assert await text(row) == b"acb"
    assert list(row.children) == ["parts.0", "parts.2", "parts.4"]
    assert isinstance(row.driver, RowDriver)
    joined = [name for name, _ in row.driver.changes if name]
    assert joined == ["parts.2", "parts.3", "parts.4"]
    for name in ("b", "c"):
        with pytest.raises(Busy):
            await yard.graph.delete(name)
    await yard.graph.delete("d")


async def test_a_name_may_come_again(yard: Yard) -> None:
    await letters(yard, "abc")
    row = await add(yard, "row", "row", parts=["a", "b"])
    assert await text(row) == b"ab"
    assert isinstance(row.driver, RowDriver)

    await change(yard, child="parts.1")
    row.driver.next = 1
    await change(yard, node="c")

    assert await text(row) == b"ac"


async def test_a_node_that_nobody_owns_ends_with_its_last_use(yard: Yard) -> None:
    await letters(yard, "a")
    inline = {"driver": "mem", "node-name": "inline", "size": 16}
    await add(yard, "row", "row", parts=["a", inline])

    await change(yard, child="parts.1")

    assert set(yard.graph.nodes) == {"a", "row"}


async def test_what_is_refused_changes_nothing(yard: Yard) -> None:
    await letters(yard, "abc")
    await letters(yard, "r", read_only=True)
    row = await add(yard, "row", "row", parts=["a", "b", "c"], writes=True)
    row.children["parts.1"].frozen = 1

    with pytest.raises(PermissionConflict):
        await change(yard, node="r")
    with pytest.raises(Busy):
        await change(yard, child="parts.1")
    with pytest.raises(Busy, match="The node a already has a parent"):
        await change(yard, node="a")
    with pytest.raises(InvalidOption, match="would create a cycle"):
        await change(yard, node="row")
    with pytest.raises(BlockyardError, match="does not have child 'parts.9'"):
        await change(yard, child="parts.9")

    row.children["parts.1"].frozen = 0
    assert list(row.children) == ["parts.0", "parts.1", "parts.2"]
    assert await text(row) == b"abc"
    assert isinstance(row.driver, RowDriver)
    assert row.driver.changes == []


async def test_a_removal_that_fails_late_keeps_the_order(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The children go on in the order of their slots."""
    await letters(yard, "abc")
    row = await add(yard, "row", "row", parts=["a", "b", "c"])

    async def refuse(perm: Perm, shared: Perm) -> None:
        raise BlockyardError("refused")

    monkeypatch.setattr(row.children["parts.0"].node.driver, "check_permissions", refuse)
    with pytest.raises(BlockyardError, match="refused"):
        await change(yard, child="parts.0")
    monkeypatch.undo()

    assert list(row.children) == ["parts.0", "parts.1", "parts.2"]
    assert await text(row) == b"abc"


async def test_requests_in_flight_end_first(yard: Yard) -> None:
    await letters(yard, "abc")
    row = await add(yard, "row", "row", parts=["a", "b"])
    slow = row.children["parts.1"].node.driver
    slow.gate.clear()
    found: list[bytes] = []

    async def read() -> None:
        found.append(await text(row))

    async def go() -> None:
        await change(yard, child="parts.1")
        found.append(await text(row))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(go)
        await anyio.wait_all_tasks_blocked()
        slow.gate.set()

    assert found == [b"ab", b"a"]


async def test_others_have_no_list(yard: Yard) -> None:
    await letters(yard, "ab")
    over = await add(yard, "over", "row", file="a")

    with pytest.raises(BlockyardError, match="The node row does not support adding a child"):
        await change(yard, node="b")
    with pytest.raises(BlockyardError, match="The node row does not support removing a child"):
        await change(yard, child="file")
    with pytest.raises(BlockyardError, match="does not support adding a child"):
        over.driver.new_child_name(over)
