# SPDX-License-Identifier: Apache-2.0
"""blkdebug as a node: options, limits, permissions, names, errors, delays, breakpoints."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from blockyard.errors import BlockyardError, ImageIOError
from blockyard.naming import node_filename
from blockyard.permission import Perm
from blockyard.schema import visit
from blockyard.schema.block import BlockdevOptions

if TYPE_CHECKING:
    from pathlib import Path

K = 1024


def below(image: Path, **more: Any) -> dict[str, Any]:
    return {
        "driver": "blkdebug",
        "image": {"driver": "file", "filename": str(image), "discard": "unmap"},
        "discard": "unmap",
        **more,
    }


def raw(image: Path, **more: Any) -> dict[str, Any]:
    return {"driver": "raw", "file": below(image, **more), "discard": "unmap"}


# -- options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"config": "/nowhere/x"}, "Could not open '/nowhere/x': No such file or directory"),
        ({"config": "/"}, "Cannot read config file: Is a directory"),
        ({"align": 3}, "Cannot meet constraints with align 3"),
        ({"align": -1}, "Value '-1' is out of range for parameter 'align'"),
        ({"align": 1 << 31}, "Cannot meet constraints with align 2147483648"),
        ({"align": 512, "max-transfer": 513}, "Cannot meet constraints with max-transfer 513"),
        ({"max-transfer": -1}, "Value '-1' is out of range for parameter 'max-transfer'"),
        ({"align": 512, "opt-write-zero": 3}, "Cannot meet constraints with opt-write-zero 3"),
        ({"align": 512, "max-write-zero": 3}, "Cannot meet constraints with max-write-zero 3"),
        (
            {"opt-write-zero": 1024, "max-write-zero": 512},
            "Cannot meet constraints with max-write-zero 512",
        ),
        ({"align": 512, "opt-discard": 3}, "Cannot meet constraints with opt-discard 3"),
        ({"opt-discard": 1024, "max-discard": 512}, "Cannot meet constraints with max-discard 512"),
        (
            {"inject-error": [{"event": "bad"}]},
            "Parameter 'event' does not accept value 'bad'",
        ),
        (
            {"set-state": [{"event": "none"}]},
            "Parameter 'set-state[0].new_state' is missing",
        ),
        ({"take-child-perms": ["write"], "read-only": True}, "Block node is read-only"),
    ],
)
def test_options_that_are_refused(image: Path, in_yard: Any, options: Any, text: str) -> None:
    with pytest.raises(BlockyardError) as raised:
        in_yard(lambda yard: yard.open(below(image, **options)))

    assert str(raised.value) == text


def test_requests_are_cut_and_aligned_to_the_limits(image: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        limits = {
            "align": 4096,
            "max-transfer": 64 * K,
            "opt-write-zero": 16 * K,
            "max-write-zero": 32 * K,
            "opt-discard": 8 * K,
            "max-discard": 16 * K,
        }
        disk = await yard.open(below(image, **limits))
        file = disk.node.children["image"].node
        await disk.write(100, b"x" * 200_000)
        writes = yard.graph.carrier.statistics(file).op[1]
        assert (writes.done, writes.bytes) == (4, 200_704)
        await disk.discard(0, 64 * K)
        assert yard.graph.carrier.statistics(file).op[3].done == 4
        await disk.discard(0, 4 * K)  # smaller than what it likes
        assert yard.graph.carrier.statistics(file).op[3].done == 5
        await disk.discard(4 * K, 32 * K)  # cut at 16K and 32K, where it likes it
        assert yard.graph.carrier.statistics(file).op[3].done == 8
        await disk.write_zeroes(0, 64 * K)
        assert yard.graph.carrier.statistics(file).op[4].done == 2
        before = writes.done
        await disk.write_zeroes(0, 4 * K)  # written, as it is too small
        assert yard.graph.carrier.statistics(file).op[4].done == 2
        assert yard.graph.carrier.statistics(file).op[1].done == before + 1

    in_yard(scenario)


def test_permissions_that_are_taken_and_not_shared(image: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        file = {"driver": "file", "filename": str(image), "node-name": "file"}
        await yard.graph.add(visit(BlockdevOptions, file))
        more = {"take-child-perms": ["resize"], "unshare-child-perms": ["write"]}
        disk = await yard.open({"driver": "blkdebug", "image": "file", **more})
        edge = disk.node.children["image"]
        assert edge.perm & Perm.RESIZE
        assert not edge.shared & Perm.WRITE
        with pytest.raises(BlockyardError, match="unshared by node"):
            await yard.graph.attach_root(yard.graph.find("file"), Perm.WRITE)

    in_yard(scenario)


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        ({}, "blkdebug::{image}"),
        ({"config": "{config}"}, "blkdebug:{config}:{image}"),
        ({"align": 512}, None),
        ({"inject-error": [{"event": "l1_update"}]}, None),
    ],
)
def test_names(image: Path, tmp_path: Path, in_yard: Any, rules: Any, name: str | None) -> None:
    config = tmp_path / "rules"
    config.write_text("")
    options = {
        key: value.format(config=config) if isinstance(value, str) else value
        for key, value in rules.items()
    }

    async def scenario(yard: Any) -> str:
        disk = await yard.open({"driver": "raw", "file": below(image, **options)})
        return node_filename(disk.node)

    shown = in_yard(scenario)
    if name is None:
        assert shown.startswith('json:{"driver": "raw", "file": {')
        assert ('"inject-error.0.event": "l1_update"' in shown) == ("inject-error" in rules)
    else:
        assert shown == name.format(image=image, config=config)


@pytest.mark.parametrize("name", ["blkdebug:", "blkdebug:x", "blkdebug"])
def test_names_without_a_second_colon(name: str, in_yard: Any) -> None:
    with pytest.raises(BlockyardError) as raised:
        in_yard(lambda yard: yard.open_named(name, "raw"))

    wanted = "blkdebug requires both config file and image path"
    assert str(raised.value) == (wanted if ":" in name else str(raised.value))
    assert "blkdebug" in str(raised.value)


def test_names_inside_names(image: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> list[str]:
        disk = await yard.open_named(f"blkdebug::blkdebug::{image}", "raw")
        node, drivers = disk.node, []
        while node.children:
            node = next(iter(node.children.values())).node
            drivers.append(node.type.name)
        return drivers

    assert in_yard(scenario) == ["blkdebug", "blkdebug", "file"]


def test_a_name_of_very_many_names_is_refused(in_yard: Any) -> None:
    with pytest.raises(BlockyardError, match="nested deeper"):
        in_yard(lambda yard: yard.open_named("blkdebug::" * 5000 + "x", "raw"))


# -- errors


@pytest.mark.parametrize("iotype", ["read", "write", "write-zeroes", "discard", "flush", None])
def test_each_kind_of_request_can_fail(image: Path, in_yard: Any, iotype: str | None) -> None:
    requests = {
        "read": lambda disk: disk.read(0, 4096),
        "write": lambda disk: disk.write(0, b"x" * 4096),
        "write-zeroes": lambda disk: disk.write_zeroes(0, 4096),
        "discard": lambda disk: disk.discard(0, 4096),
        "flush": lambda disk: disk.flush(),
    }

    async def scenario(yard: Any) -> None:
        rule = {"event": "none", "errno": errno.EREMOTEIO}
        rules = [rule | ({"iotype": iotype} if iotype else {})]
        disk = await yard.open(below(image, **{"inject-error": rules}))
        for name, request in requests.items():
            if iotype in (name, None):
                with pytest.raises(ImageIOError) as raised:
                    await request(disk)
                assert raised.value.errno == errno.EREMOTEIO
            else:
                await request(disk)
        await disk.block_status(0, 4096)

    in_yard(scenario)


def test_block_status_fails_only_when_asked_to(image: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        rules = [{"event": "none", "iotype": "block-status", "once": True}]
        disk = await yard.open(below(image, **{"inject-error": rules}))
        with pytest.raises(ImageIOError, match="Input/output error"):
            await disk.block_status(0, 4096)
        await disk.block_status(0, 4096)

    in_yard(scenario)


def test_a_delay_passes_before_the_request_does(image: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        rules = [{"event": "read_aio", "errno": 0, "delay-ns": 50_000_000, "once": True}]
        disk = await yard.open(raw(image, **{"inject-error": rules}))
        began = time.monotonic()
        assert await disk.read(0, 512) == bytes(512)
        assert time.monotonic() - began > 0.049

    in_yard(scenario)


def test_reopening_changes_flags_and_nothing_else(image: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        file = {"driver": "file", "filename": str(image), "node-name": "file"}
        await yard.graph.add(visit(BlockdevOptions, file))
        options = {"driver": "blkdebug", "node-name": "debug", "image": "file"}
        await yard.graph.add(visit(BlockdevOptions, options))
        await yard.graph.reopen([visit(BlockdevOptions, options | {"read-only": True})])
        assert yard.graph.find("debug").read_only
        for change, text in (
            ({"align": 512}, "Cannot change the option 'align'"),
            (
                {"inject-error": [{"event": "none"}]},
                "Cannot change the option 'inject-error.0.event'",
            ),
        ):
            with pytest.raises(BlockyardError) as raised:
                await yard.graph.reopen([visit(BlockdevOptions, options | change)])
            assert str(raised.value) == text

    in_yard(scenario)


# -- breakpoints


async def suspended(driver: Any, tag: str) -> None:
    with anyio.fail_after(20):
        while not driver.debug_is_suspended(tag):
            await anyio.sleep(0.005)


@pytest.mark.parametrize(
    ("event", "lands"),
    [
        ("write_aio", False),
        ("pwritev", False),
        ("pwritev_rmw_after_head", False),
        ("pwritev_done", True),
    ],
)
def test_a_request_stops_and_goes_on(
    image: Path, in_yard: Any, capfd: Any, event: str, lands: bool
) -> None:
    async def scenario(yard: Any) -> None:
        disk = await yard.open(raw(image, align=4096))
        driver = disk.node.driver
        driver.debug_breakpoint(event, "A")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(disk.write, 512, b"stop" * 128)
            await suspended(driver, "A")
            assert (image.read_bytes()[512:516] == b"stop") == lands
            with pytest.raises(ImageIOError, match="No such file or directory"):
                driver.debug_resume("B")
            driver.debug_resume("A")
            assert not driver.debug_is_suspended("A")
        assert image.read_bytes()[512:516] == b"stop"
        await disk.write(512, b"next" * 128)  # a breakpoint stops one request
        with pytest.raises(ImageIOError, match="No such file or directory"):
            driver.debug_resume("A")
        with pytest.raises(ImageIOError, match="No such file or directory"):
            driver.debug_breakpoint("bad", "A")

    in_yard(scenario)
    said = capfd.readouterr().out
    assert said == "blkdebug: Suspended request 'A'\nblkdebug: Resuming request 'A'\n"


def test_a_breakpoint_taken_away_lets_go(image: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        disk = await yard.open(raw(image))
        driver = disk.node.driver
        driver.debug_breakpoint("write_aio", "A")
        driver.debug_remove_breakpoint("A")
        await disk.write(0, b"x" * 512)
        driver.debug_breakpoint("write_aio", "A")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(disk.write, 512, b"y" * 512)
            await suspended(driver, "A")
            driver.debug_remove_breakpoint("A")
        with pytest.raises(ImageIOError, match="No such file or directory"):
            driver.debug_remove_breakpoint("A")
        assert image.read_bytes()[:1024] == b"x" * 512 + b"y" * 512

    in_yard(scenario)


def test_a_drained_node_holds_nothing(image: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        disk = await yard.open(raw(image))
        driver = disk.node.driver
        driver.debug_breakpoint("write_aio", "A")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(disk.write, 0, b"z" * 512)
            await suspended(driver, "A")
            async with yard.graph.drained([driver.node.children["file"].node]):
                pass
        assert image.read_bytes()[:512] == b"z" * 512

    in_yard(scenario)


def test_a_request_that_overlaps_waits_for_the_stopped_one(image: Path, in_yard: Any) -> None:
    async def scenario(yard: Any) -> None:
        disk = await yard.open(raw(image, align=4096))
        driver = disk.node.driver
        driver.debug_breakpoint("pwritev_rmw_after_head", "A")
        ended = []

        async def write(offset: int, letter: bytes) -> None:
            await disk.write(offset, letter * 512)
            ended.append(letter)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, 512, b"a")
            await suspended(driver, "A")
            tasks.start_soon(write, 1024, b"b")
            await anyio.wait_all_tasks_blocked()
            assert ended == []
            driver.debug_resume("A")
        assert ended == [b"a", b"b"]
        assert image.read_bytes()[512:1536] == b"a" * 512 + b"b" * 512

    in_yard(scenario)
