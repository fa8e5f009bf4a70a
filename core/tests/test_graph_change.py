# SPDX-License-Identifier: Apache-2.0
"""Changing the graph under its users: reopen, replace, insert, drain, activity, loops."""

from typing import Any

import anyio
import pytest

from blockyard.errors import BlockyardError, Busy, ImageIOError, InvalidOption
from blockyard.loop import LoopParams
from blockyard.node import Node
from blockyard.permission import ALL, Perm
from blockyard.schema import visit
from blockyard.schema.block import BlockdevOptions
from blockyard.yard import Yard

pytestmark = pytest.mark.anyio

READ, WRITE = Perm.CONSISTENT_READ, Perm.WRITE


def visited(driver: str, name: str | None = None, /, **more: Any) -> Any:
    named = {} if name is None else {"node-name": name}
    options = {key.replace("_", "-"): value for key, value in more.items()}
    return visit(BlockdevOptions, {"driver": driver, **named, **options})


async def add(yard: Yard, driver: str, name: str, /, **more: Any) -> Node:
    return await yard.graph.add(visited(driver, name, **more))


async def reopen_refused(yard: Yard, text: str, *options: Any) -> None:
    with pytest.raises(BlockyardError) as caught:
        await yard.graph.reopen(options)
    assert str(caught.value) == text


# -- reopen


async def test_reopen_changes_several_nodes_or_none(yard: Yard) -> None:
    a, b = await add(yard, "mem", "a"), await add(yard, "mem", "b")

    await reopen_refused(
        yard,
        "prepare refused",
        visited("mem", "a", read_only=True),
        visited("mem", "b", read_only=True, fails="prepare"),
    )
    assert (a.read_only, b.read_only) == (False, False)

    await yard.graph.reopen([visited("mem", n, read_only=True) for n in "ab"])
    assert (a.read_only, b.read_only) == (True, True)


async def test_reopen_refuses_what_cannot_change(yard: Yard) -> None:
    await add(yard, "mem", "disk", size=4096)
    await add(yard, "mem", "other")
    await add(yard, "over", "top", file="disk")
    await add(yard, "form", "form", file="other", backing="disk")
    top, nope = "Making 'top' a file child of 'top' would create a cycle", "nope"

    for text, options in {
        "node-name not specified": visited("mem"),
        "Failed to find node with node-name='nope'": visited("mem", nope),
        "Cannot change the option 'size'": visited("mem", "disk", size=512),
        "Option 'size' cannot be reset to its default value": visited("mem", "disk"),
        "Cannot change the option 'driver'": visited("mem", "top"),
        "Cannot set file child to format node without file child": visited(
            "over", "other", file="disk"
        ),
        top: visited("over", "top", file="top"),
        "Cannot find device='' nor node-name='nope'": visited("over", "top", file=nope),
        "backing is missing for 'form'": visited("form", "form", file="other"),
    }.items():
        await reopen_refused(yard, text, options)


async def test_what_a_driver_itself_refuses_is_told_first(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = await add(yard, "mem", "disk", size=4096)
    await add(yard, "mem", "other")
    form = await add(yard, "form", "form", file="other", backing="disk")

    def judge(options: Any) -> None:
        if 3 in (getattr(options, "version", 0), getattr(options, "size", 0)):
            raise BlockyardError("three is too many")

    monkeypatch.setattr(form.driver, "reopen_judge", judge)
    monkeypatch.setattr(disk.driver, "reopen_judge", judge)
    for text, options in [
        ("three is too many", visited("form", "form", file="other", version=3)),
        ("backing is missing for 'form'", visited("form", "form", file="other", version=2)),
        ("three is too many", visited("mem", "disk", size=3)),
        ("Cannot change the option 'size'", visited("mem", "disk", size=2)),
    ]:
        await reopen_refused(yard, text, options)


async def test_reopen_refuses_read_only_under_a_writer(yard: Yard) -> None:
    node = await add(yard, "mem", "disk")
    root = await yard.graph.attach_root(node, WRITE)

    await reopen_refused(
        yard,
        "Read-only block node 'disk' cannot support read-write users",
        visited("mem", "disk", read_only=True),
    )
    assert not node.read_only
    await yard.graph.detach_root(root)


async def test_reopen_replaces_and_removes_children(yard: Yard) -> None:
    for name in ("a", "b", "c"):
        await add(yard, "mem", name)
    top = await add(yard, "form", "top", file="a", backing="b")
    root = await yard.graph.attach_root(top, READ)

    await yard.graph.reopen([visited("form", "top", file="c", backing=None)])
    assert {n: c.node.name for n, c in top.children.items()} == {"file": "c"}
    assert not yard.graph.nodes["a"].parents
    await yard.graph.reopen([visited("form", "top", file="c", backing="a")])
    assert top.children["backing"].node.name == "a"
    assert await root.access.read(0, 512) == bytes(512)
    await yard.graph.detach_root(root)


async def test_reopen_hands_inherited_options_down(yard: Yard) -> None:
    mem = {"driver": "mem", "node-name": "own"}
    await add(yard, "form", "top", file=mem)
    own = yard.graph.nodes["own"]

    await yard.graph.reopen([visited("form", "top", file="own", read_only=True)])
    assert own.read_only
    await yard.graph.reopen([visited("form", "top", file=mem)])
    assert not own.read_only


# -- replace and insert


async def test_replacing_keeps_requests_and_users(yard: Yard) -> None:
    old, new = await add(yard, "mem", "old"), await add(yard, "mem", "new")
    root = await yard.graph.attach_root(old, READ | WRITE)
    written: list[int] = []

    async def writer() -> None:
        for number in range(200):
            await root.access.write(number * 16, bytes([number]) * 16)
            written.append(number)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer)
        for target, source in ((new, old), (old, new), (new, old)):
            await anyio.sleep(0.005)
            await yard.graph.replace(source, target)

    assert len(written) == 200
    assert root.node is new
    merged = [max(a, b) for a, b in zip(old.driver.memory, new.driver.memory, strict=True)]  # type: ignore[attr-defined]
    assert bytes(merged[: 200 * 16]) == b"".join(bytes([n]) * 16 for n in range(200))
    await yard.graph.detach_root(root)


async def test_inserting_puts_a_node_between(yard: Yard) -> None:
    disk = await add(yard, "mem", "disk")
    user = await add(yard, "over", "user", file="disk")
    root = await yard.graph.attach_root(disk, READ)

    filter_ = await yard.graph.insert(disk, visited("over", "filter", file="disk"))

    assert root.node is filter_
    assert user.children["file"].node is filter_
    assert filter_.children["file"].node is disk
    assert [user_.description for user_ in disk.parents] == ["node 'filter'"]
    await yard.graph.detach_root(root)


async def test_a_refused_insertion_leaves_nothing(yard: Yard) -> None:
    disk = await add(yard, "mem", "disk")
    root = await yard.graph.attach_root(disk, READ | WRITE)

    with pytest.raises(BlockyardError):
        await yard.graph.insert(disk, visited("over", "filter", file="disk", read_only=True))
    assert list(yard.graph.nodes) == ["disk"]
    assert root.node is disk
    await yard.graph.detach_root(root)


# -- drain


async def test_drain_waits_for_what_is_in_flight_without_blocking(yard: Yard) -> None:
    node = await add(yard, "mem", "disk")
    root = await yard.graph.attach_root(node, READ)
    gate = node.driver.gate  # type: ignore[attr-defined]
    order: list[str] = []

    async def read(name: str) -> None:
        await root.access.read(0, 512)
        order.append(name)

    gate.clear()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, "before")
        await anyio.sleep(0.05)
        tasks.start_soon(_drain_and_note, yard, node, order)
        await anyio.sleep(0.05)
        tasks.start_soon(read, "after")
        await anyio.sleep(0.05)
        assert order == []
        gate.set()

    assert order == ["before", "drained", "after"]
    await yard.graph.detach_root(root)


async def _drain_and_note(yard: Yard, node: Node, order: list[str]) -> None:
    async with yard.graph.drained([node]):
        await anyio.sleep(0.02)
        order.append("drained")


async def test_inner_requests_pass_in_a_drained_section(yard: Yard) -> None:
    node = await add(yard, "mem", "disk")
    root = await yard.graph.attach_root(node, READ)

    async with yard.graph.drained([node]), yard.graph.drained([node]):
        inner = yard.graph.carrier.access(root.native, inner=True)
        assert await inner.read(0, 16) == bytes(16)
    await yard.graph.detach_root(root)


# -- resize


async def test_resizing_needs_everybodys_leave(yard: Yard) -> None:
    node = await add(yard, "mem", "disk")
    root = await yard.graph.attach_root(node, READ, ALL & ~Perm.RESIZE)

    with pytest.raises(Busy, match="permissions 'resize' are both required by"):
        await yard.graph.resize(node, 4096)
    await yard.graph.detach_root(root)
    await yard.graph.resize(node, 4096)
    assert node.length == 4096
    with pytest.raises(InvalidOption, match="expects a >0 size"):
        await yard.graph.resize(node, -1)


async def test_a_driver_that_cannot_be_resized_says_so(yard: Yard) -> None:
    await add(yard, "mem", "disk")
    node = await add(yard, "form", "form", file="disk")

    with pytest.raises(BlockyardError, match="Image format driver does not support resize"):
        await yard.graph.resize(node, 4096)


async def test_a_read_only_node_is_not_resized(yard: Yard) -> None:
    node = await add(yard, "mem", "disk", read_only=True)

    with pytest.raises(BlockyardError, match="Image is read-only"):
        await yard.graph.resize(node, 4096)


# -- activity


async def test_inactive_nodes_refuse_writers_and_active_parents(yard: Yard) -> None:
    graph = yard.graph
    disk = await add(yard, "mem", "disk")
    top = await add(yard, "form", "top", file="disk")
    with pytest.raises(Busy, match="^Node has active parent node$"):
        await graph.set_active(disk, False)

    await graph.set_active(top, False)
    assert (top.active, disk.active) == (False, False)
    with pytest.raises(BlockyardError, match="Permission 'write' unavailable on inactive node"):
        await graph.attach_root(top, WRITE)
    with pytest.raises(InvalidOption, match="Inactive 'disk' can't be a file child of active 'x'"):
        await add(yard, "over", "x", file="disk")

    await graph.set_active(top, True)
    assert (top.active, disk.active) == (True, True)


async def test_a_writer_keeps_its_node_active(yard: Yard) -> None:
    disk = await add(yard, "mem", "disk")
    root = await yard.graph.attach_root(disk, WRITE)

    with pytest.raises(ImageIOError, match="^Failed to inactivate node: Operation not permitted$"):
        await yard.graph.set_active(disk, False)
    assert disk.active
    with pytest.raises(ImageIOError, match="^Failed to inactivate all nodes: Operation not perm"):
        await yard.graph.set_active(None, False)
    await yard.graph.detach_root(root)


async def test_a_user_that_allows_it_sleeps_and_wakes_with_its_node(yard: Yard) -> None:
    disk = await add(yard, "mem", "disk")
    root = await yard.graph.attach_root(disk, READ | WRITE, allow_inactive=True)

    await yard.graph.set_active(disk, False)
    assert root.perm == Perm(0)
    with pytest.raises(ImageIOError):
        await root.access.write(0, b"x")
    await yard.graph.set_active(disk, True)
    assert root.perm == READ | WRITE
    await root.access.write(0, b"x")
    await yard.graph.detach_root(root)


# -- loops


async def test_connected_nodes_move_together(yard: Yard) -> None:
    disk = await add(yard, "mem", "disk")
    top = await add(yard, "over", "top", file="disk")
    io0 = yard.loops.add("io0", LoopParams())

    await yard.graph.move(disk, io0)
    assert (disk.home, top.home, io0.users) == (io0, io0, 2)
    with pytest.raises(Busy, match="^object 'io0' is in use, can not be deleted$"):
        await yard.loops.remove("io0")
    root = await yard.graph.attach_root(top, READ, movable=False)
    assert await root.access.read(0, 512) == bytes(512)
    with pytest.raises(Busy, match="^Cannot change iothread of active block backend$"):
        await yard.graph.move(disk, yard.loops.main)
    await yard.graph.detach_root(root)
    await yard.graph.move(disk, yard.loops.main)
    await yard.loops.remove("io0")


async def test_a_filter_is_as_long_as_what_it_shows(yard: Yard) -> None:
    disk = await add(yard, "mem", "disk")
    lower = await add(yard, "over", "lower", file="disk")
    upper = await add(yard, "over", "upper", file="lower")
    other = await add(yard, "mem", "other", size=512)

    await yard.graph.resize(disk, 4096)
    assert (lower.length, upper.length) == (4096, 4096)
    async with await yard.attach("disk") as image:
        await image.resize(8192)
        with anyio.fail_after(5):
            while upper.length != 8192:
                await anyio.sleep(0.001)
    await yard.graph.replace(disk, other)
    assert (lower.length, upper.length) == (512, 512)


async def test_options_that_are_not_mentioned_stay(yard: Yard) -> None:
    node = await yard.graph.add(visited("form", "a", file={"driver": "mem", "size": 8192}))
    await yard.graph.change_options(node, {"read-only": "on", "file.cache.direct": "on"})
    assert node.read_only
    assert node.children["file"].node.cache_direct
    assert node.children["file"].node.length == 8192
    with pytest.raises(InvalidOption, match="^Parameter 'read-only' expects 'on' or 'off'$"):
        await yard.graph.change_options(node, {"read-only": "maybe"})
    with pytest.raises(InvalidOption, match="^Cannot change the option 'driver'$"):
        await yard.graph.change_options(node, {"driver": "mem"})
    with pytest.raises(InvalidOption, match="^Cannot change the option 'strange'$"):
        await yard.graph.change_options(node, {"strange": "1"})
    await yard.graph.change_options(node, {"version": "3"})
    assert node.options.u.version == 3
    await yard.graph.change_options(node, {"file.size": "8192"})
