# SPDX-License-Identifier: Apache-2.0
"""The block-dirty-bitmap commands and transaction, as a monitor runs them."""

import hashlib
from typing import Any

import anyio
import pytest

from blockyard.errors import BlockyardError
from blockyard.qmp.dispatcher import Dispatcher
from blockyard.yard import Yard

pytestmark = pytest.mark.anyio


@pytest.fixture
async def run(yard: Yard) -> Any:
    """``await run("NAME", member=value)``: a command's JSON result; there is a node ``n``."""
    dispatcher = Dispatcher(yard, yard.registry)

    async def execute(name: str, /, **arguments: Any) -> Any:
        dashed = {key.replace("_", "-"): value for key, value in arguments.items()}
        return await dispatcher.execute(name, dashed)

    await execute("blockdev-add", driver="mem", node_name="n", size=1 << 20)
    return execute


async def refused(text: str, call: Any) -> None:
    with pytest.raises(BlockyardError) as caught:
        await call
    assert str(caught.value) == text


async def told(run: Any, node: str = "n") -> Any:
    nodes = await run("query-named-block-nodes", flat=True)
    return next(each.get("dirty-bitmaps") for each in nodes if each["node-name"] == node)


async def write(yard: Yard, offset: int, length: int) -> None:
    async with await yard.attach("n") as image:
        await image.write(offset, bytes(length))


def action(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": data}


def on(kind: str, name: str) -> dict[str, Any]:
    return action(f"block-dirty-bitmap-{kind}", node="n", name=name)


async def test_bitmaps_are_told_newest_first(run: Any, yard: Yard) -> None:
    assert await told(run) is None
    await run("block-dirty-bitmap-add", node="n", name="a")
    await run("block-dirty-bitmap-add", node="n", name="b", granularity=512, disabled=True)
    await write(yard, 70000, 1)
    common = {"busy": False, "persistent": False}
    assert await told(run) == [
        {"name": "b", "count": 0, "granularity": 512, "recording": False, **common},
        {"name": "a", "count": 65536, "granularity": 65536, "recording": True, **common},
    ]


async def test_recording_is_switched(run: Any, yard: Yard) -> None:
    await run("block-dirty-bitmap-add", node="n", name="a", granularity=4096)
    await run("block-dirty-bitmap-disable", node="n", name="a")
    await write(yard, 0, 4096)
    await run("block-dirty-bitmap-enable", node="n", name="a")
    await write(yard, 8192, 4096)
    assert [(await told(run))[0][key] for key in ("count", "recording")] == [4096, True]
    await run("block-dirty-bitmap-clear", node="n", name="a")
    assert (await told(run))[0]["count"] == 0
    await run("block-dirty-bitmap-remove", node="n", name="a")
    assert await told(run) is None


async def test_bitmaps_are_merged_and_told_as_digests(run: Any, yard: Yard) -> None:
    await run("blockdev-add", driver="mem", node_name="m", size=1 << 20)
    await run("block-dirty-bitmap-add", node="n", name="a", granularity=512)
    await write(yard, 1024, 512)
    await run("block-dirty-bitmap-add", node="n", name="b", granularity=4096)
    await write(yard, 65536, 512)
    await run("block-dirty-bitmap-add", node="m", name="c", granularity=512)
    sources = [{"node": "n", "name": "a"}, {"node": "n", "name": "b"}, "c"]
    await run("block-dirty-bitmap-merge", node="m", target="c", bitmaps=sources)
    assert (await told(run, "m"))[0]["count"] == 512 + 4096
    merged = await run("x-debug-block-dirty-bitmap-sha256", node="m", name="c")
    # Bit 2 of a, and bit 16 of b as eight bits.
    data = bytes([4, *bytes(15), 0xFF]).ljust(256, b"\0")
    assert merged == {"sha256": hashlib.sha256(data).hexdigest()}
    await run("block-dirty-bitmap-merge", node="m", target="c", bitmaps=["c"])
    assert await run("x-debug-block-dirty-bitmap-sha256", node="m", name="c") == merged


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("Bitmap name cannot be empty", "add", {"node": "nope", "name": ""}),
        ("Cannot find device='nope' nor node-name='nope'", "add", {"node": "nope", "name": "b"}),
        (
            "Granularity must be power of 2 and at least 512",
            "add",
            {"name": "b", "granularity": 256},
        ),
        (
            "Granularity must be power of 2 and at least 512",
            "add",
            {"name": "b", "granularity": 4097},
        ),
        ("Bitmap already exists: a", "add", {"name": "a"}),
        (f"Bitmap name too long: {'x' * 1024}", "add", {"name": "x" * 1024}),
        (
            "Can't store persistent bitmaps to n: Operation not supported",
            "add",
            {"name": "a", "persistent": True},
        ),
        ("Node 'nope' not found", "remove", {"node": "nope", "name": "a"}),
        ("Dirty bitmap 'b' not found", "remove", {"name": "b"}),
        ("Dirty bitmap 'b' not found", "clear", {"name": "b"}),
        ("Dirty bitmap 'b' not found", "enable", {"name": "b"}),
        ("Dirty bitmap 'b' not found", "disable", {"name": "b"}),
        ("Dirty bitmap 'b' not found", "merge", {"target": "b", "bitmaps": []}),
        ("Dirty bitmap 'b' not found", "merge", {"target": "a", "bitmaps": ["a", "b"]}),
        (
            "Node 'q' not found",
            "merge",
            {"target": "a", "bitmaps": [{"node": "q", "name": "a"}]},
        ),
        (
            (
                "Bitmaps are of different sizes (destination size is 1048576, "
                "source size is 512) and can't be merged"
            ),
            "merge",
            {"target": "a", "bitmaps": [{"node": "small", "name": "a"}]},
        ),
    ],
)
async def test_refusals(run: Any, text: str, name: str, arguments: dict[str, Any]) -> None:
    await run("blockdev-add", driver="mem", node_name="small", size=512)
    await run("block-dirty-bitmap-add", node="small", name="a")
    await run("block-dirty-bitmap-add", node="n", name="a")
    before = await told(run)
    await refused(text, run(f"block-dirty-bitmap-{name}", **{"node": "n", **arguments}))
    assert await told(run) == before


async def test_a_busy_bitmap_is_left_alone_and_keeps_its_node(run: Any, yard: Yard) -> None:
    await run("block-dirty-bitmap-add", node="n", name="a")
    await run("block-dirty-bitmap-add", node="n", name="b")
    yard.graph.find("n").bitmaps["a"].busy = True
    text = "Bitmap 'a' is currently in use by another operation and cannot be used"
    for name in ("remove", "clear", "enable", "disable"):
        await refused(text, run(f"block-dirty-bitmap-{name}", node="n", name="a"))
    for target, source in (("a", "b"), ("b", "a")):
        merge = run("block-dirty-bitmap-merge", node="n", target=target, bitmaps=[source])
        await refused(text, merge)
    await refused("Node n is in use", run("blockdev-del", node_name="n"))
    yard.graph.find("n").bitmaps["a"].busy = False
    await run("blockdev-del", node_name="n")


# -- transactions


async def test_a_transaction_does_all(run: Any, yard: Yard) -> None:
    await run("block-dirty-bitmap-add", node="n", name="old", granularity=4096)
    await run("block-dirty-bitmap-add", node="n", name="gone")
    await write(yard, 0, 4096)
    await run(
        "transaction",
        actions=[
            action("block-dirty-bitmap-add", node="n", name="new", granularity=4096),
            action("block-dirty-bitmap-merge", node="n", target="new", bitmaps=["old"]),
            on("clear", "old"),
            on("disable", "new"),
            on("remove", "gone"),
        ],
        properties={"completion-mode": "individual"},
    )
    new, old = await told(run)
    assert (new["name"], new["count"], new["recording"]) == ("new", 4096, False)
    assert (old["name"], old["count"], old["recording"]) == ("old", 0, True)


@pytest.mark.parametrize(
    "actions",
    [
        [action("block-dirty-bitmap-add", node="n", name="new")],
        [on("clear", "a"), on("enable", "off"), on("disable", "a")],
        [on("remove", "a"), on("remove", "off")],
        [action("block-dirty-bitmap-merge", node="n", target="off", bitmaps=["a"])],
        [
            action("block-dirty-bitmap-merge", node="n", target="off", bitmaps=["a"]),
            on("clear", "off"),
            action("block-dirty-bitmap-merge", node="n", target="a", bitmaps=["off"]),
            on("clear", "a"),
        ],
    ],
)
async def test_a_transaction_that_fails_does_nothing(
    run: Any, yard: Yard, actions: list[Any]
) -> None:
    await run("block-dirty-bitmap-add", node="n", name="a", granularity=4096)
    await write(yard, 0, 8192)
    await run("block-dirty-bitmap-add", node="n", name="off", granularity=512, disabled=True)
    before = await told(run)
    digests = [
        await run("x-debug-block-dirty-bitmap-sha256", node="n", name=name) for name in ("a", "off")
    ]
    await refused(
        "Transaction aborted using Abort action",
        run("transaction", actions=[*actions, action("abort")]),
    )
    assert await told(run) == before
    assert digests == [
        await run("x-debug-block-dirty-bitmap-sha256", node="n", name=name) for name in ("a", "off")
    ]
    await run("transaction", actions=[on("enable", "off"), on("remove", "a")])


async def test_a_bitmap_that_a_transaction_removes_is_there_but_busy(run: Any) -> None:
    await run("block-dirty-bitmap-add", node="n", name="a")
    remove = on("remove", "a")
    again = action("block-dirty-bitmap-add", node="n", name="a")
    await refused("Bitmap already exists: a", run("transaction", actions=[remove, again]))
    await refused(
        "Bitmap 'a' is currently in use by another operation and cannot be used",
        run("transaction", actions=[remove, on("clear", "a")]),
    )
    assert (await told(run))[0]["busy"] is False


async def test_a_transaction_holds_requests_back(run: Any, yard: Yard) -> None:
    """A write begun before the transaction has ended in it, one begun in it waits."""
    await run("block-dirty-bitmap-add", node="n", name="a", granularity=512)
    node = yard.graph.find("n")
    seen: list[tuple[int, int]] = []

    async def watch(image: Any) -> None:
        for i in range(200):
            await image.write(i * 512, b"x" * 512)

    async with await yard.attach("n") as image, anyio.create_task_group() as tasks:
        tasks.start_soon(watch, image)
        for i in range(20):
            written = len(bytes(node.driver.memory).rstrip(b"\0")) // 512
            actions = [
                action("block-dirty-bitmap-add", node="n", name=f"since{i}", granularity=512),
                on("disable", "a"),
                on("enable", "a"),
            ]
            await run("transaction", actions=actions)
            seen.append((written, i))
            await anyio.sleep(0.001)
    for written, i in seen:
        missed = 200 - node.bitmaps[f"since{i}"].count // 512
        assert missed >= written
        assert not any(node.bitmaps[f"since{i}"].serialise(0, written // 8))
    assert node.bitmaps["a"].count == 200 * 512


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (
            "Action 'abort' does not support transaction property completion-mode = grouped",
            {"actions": [action("abort")], "properties": {"completion-mode": "grouped"}},
        ),
        (
            "Parameter 'completion-mode' does not accept value 'all'",
            {"actions": [], "properties": {"completion-mode": "all"}},
        ),
        (
            "Block format 'mem' used by device 'n' does not support internal snapshots",
            {"actions": [action("blockdev-snapshot-internal-sync", device="n", name="s")]},
        ),
        ("Parameter 'actions' is missing", {}),
        ("Parameter 'actions[0].data' is missing", {"actions": [{"type": "abort"}]}),
        ("Parameter 'actions[0].data.a' is unexpected", {"actions": [action("abort", a=1)]}),
        ("Parameter 'type' does not accept value 'fly'", {"actions": [action("fly")]}),
    ],
)
async def test_transactions_that_are_refused_whole(
    run: Any, text: str, arguments: dict[str, Any]
) -> None:
    await refused(text, run("transaction", **arguments))


async def test_a_transaction_may_be_empty(run: Any) -> None:
    assert await run("transaction", actions=[]) == {}
    assert await run("transaction", actions=[], properties={"completion-mode": "grouped"}) == {}
