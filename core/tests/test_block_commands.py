# SPDX-License-Identifier: Apache-2.0
"""The block commands, as a monitor runs them."""

from typing import Any

import anyio
import pytest

from blockyard.errors import BlockyardError
from blockyard.qmp.dispatcher import Dispatcher
from blockyard.yard import Yard

pytestmark = pytest.mark.anyio


@pytest.fixture
def run(yard: Yard) -> Any:
    """``await run("blockdev-add", driver="mem", node_name="x")``: a command's JSON result."""
    dispatcher = Dispatcher(yard, yard.registry)

    async def execute(name: str, /, **arguments: Any) -> Any:
        dashed = {key.replace("_", "-"): value for key, value in arguments.items()}
        return await dispatcher.execute(name, dashed)

    return execute


@pytest.fixture
def events(yard: Yard) -> list[Any]:
    told: list[Any] = []
    yard.events.subscribe(lambda message: told.append((message["event"], message.get("data"))))
    return told


async def refused(text: str, call: Any) -> None:
    with pytest.raises(BlockyardError) as caught:
        await call
    assert str(caught.value) == text


async def test_the_root_node_needs_a_name(run: Any) -> None:
    await refused(
        "'node-name' must be specified for the root node", run("blockdev-add", driver="mem")
    )


async def test_nodes_are_told_newest_first_with_all_members(run: Any) -> None:
    await run("blockdev-add", driver="mem", node_name="disk", size=4096)
    await run("blockdev-add", driver="form", node_name="top", file="disk", read_only=True)
    top, disk = await run("query-named-block-nodes", flat=True)

    assert (top["node-name"], disk["node-name"]) == ("top", "disk")
    assert top["children"] == [{"child": "file", "node-name": "disk"}]
    assert (top["ro"], top["drv"], top["active"], top["write_threshold"]) == (True, "form", True, 0)
    assert top["cache"] == {"writeback": True, "direct": False, "no-flush": False}
    assert disk["image"]["virtual-size"] == 4096
    assert disk["file"] == 'json:{"driver": "mem", "size": 4096}'
    assert set(disk["image"]["limits"]) >= {"request-alignment", "max-iov", "min-mem-alignment"}
    assert await run("query-block") == []


async def test_backing_chains_are_nested_unless_flat(run: Any) -> None:
    await run("blockdev-add", driver="mem", node_name="base")
    await run(
        "blockdev-add", driver="form", node_name="top", file={"driver": "mem"}, backing="base"
    )
    top = (await run("query-named-block-nodes"))[0]

    assert top["backing_file_depth"] == 1
    assert top["image"]["backing-image"]["format"] == "mem"
    flat = (await run("query-named-block-nodes", flat=True))[0]
    assert "backing-image" not in flat["image"]


async def test_counters_are_told_down_the_graph(run: Any, yard: Yard) -> None:
    await run("blockdev-add", driver="mem", node_name="disk")
    async with await yard.attach("disk") as image:
        await image.write(512, bytes(512))
        await image.read(0, 1024)
    await run("blockdev-add", driver="over", node_name="top", file="disk")
    disk, top = await run("query-blockstats", query_nodes=True)

    assert (disk["stats"]["wr_operations"], disk["stats"]["wr_bytes"]) == (1, 512)
    assert (disk["stats"]["rd_bytes"], disk["stats"]["wr_highest_offset"]) == (1024, 1024)
    assert disk["stats"]["idle_time_ns"] >= 0
    assert top["parent"]["node-name"] == "disk"
    assert await run("query-blockstats") == []


async def test_a_threshold_is_told_once(run: Any, yard: Yard, events: list[Any]) -> None:
    await refused(
        "Device 'nope' not found",
        run("block-set-write-threshold", node_name="nope", write_threshold=1),
    )
    await run("blockdev-add", driver="mem", node_name="disk")
    await run("block-set-write-threshold", node_name="disk", write_threshold=1000)
    async with await yard.attach("disk") as image:
        await image.write(0, bytes(512))
        assert events == []
        await image.write(900, bytes(200))
        await image.write(900, bytes(200))
    with anyio.fail_after(5):
        while not events:
            await anyio.sleep(0.001)
    await anyio.sleep(0.01)

    data = {"node-name": "disk", "amount-exceeded": 100, "write-threshold": 1000}
    assert events == [("BLOCK_WRITE_THRESHOLD", data)]
    assert (await run("query-named-block-nodes"))[0]["write_threshold"] == 0


async def test_the_graph_is_told_with_its_permissions(run: Any, yard: Yard) -> None:
    await run("blockdev-add", driver="mem", node_name="disk")
    await run("blockdev-add", driver="form", node_name="top", file="disk")
    async with await yard.attach("top"):
        graph = await run("x-debug-query-block-graph")

    names = {node["id"]: (node["type"], node["name"]) for node in graph["nodes"]}
    edges = {(names[e["parent"]], names[e["child"]]): e for e in graph["edges"]}
    assert edges[("block-backend", ""), ("block-driver", "top")]["name"] == "root"
    below = edges[("block-driver", "top"), ("block-driver", "disk")]
    assert set(below["perm"]) == {"consistent-read", "write", "resize"}
    assert set(below["shared-perm"]) == {"consistent-read", "write-unchanged"}


async def test_iothreads_are_moved_by_force_only_under_users(run: Any, yard: Yard) -> None:
    await run("object-add", qom_type="iothread", id="io0")
    await run("blockdev-add", driver="mem", node_name="disk")
    for text, arguments in {
        "Failed to find node with node-name='nope'": {"node_name": "nope", "iothread": "io0"},
        "Cannot find iothread nope": {"node_name": "disk", "iothread": "nope"},
    }.items():
        await refused(text, run("x-blockdev-set-iothread", **arguments))
    async with await yard.attach("disk") as image:
        await refused(
            "Node disk is associated with a BlockBackend and could be in use "
            "(use force=true to override this check)",
            run("x-blockdev-set-iothread", node_name="disk", iothread="io0"),
        )
        await run("x-blockdev-set-iothread", node_name="disk", iothread="io0", force=True)
        await image.write(0, b"x")
        assert await image.read(0, 1) == b"x"
    await run("x-blockdev-set-iothread", node_name="disk", iothread=None)
    await run("object-del", id="io0")


async def test_creating_is_a_job(run: Any, yard: Yard, events: list[Any], tmp_path: Any) -> None:
    await refused(
        "Driver does not support blockdev-create",
        run("blockdev-create", job_id="j", options={"driver": "mem"}),
    )
    assert await run("query-jobs") == []
    await refused("Job not found", run("job-dismiss", id="j"))
