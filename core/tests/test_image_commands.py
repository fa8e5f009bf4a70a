# SPDX-License-Identifier: Apache-2.0
"""x-blockdev-amend, internal snapshots, change-backing-file, and what is told of images."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from book import SHELF, BookDriver, book_registry, header_of, put

from blockyard.changes.transaction import Transaction
from blockyard.commands.snapshot import BlockdevSnapshotInternal, take
from blockyard.corruption import report_corruption
from blockyard.errors import BlockyardError
from blockyard.qmp.dispatcher import Dispatcher
from blockyard.yard import Yard

pytestmark = pytest.mark.anyio


class Monitor:
    """A yard, its commands and its events."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._execute = Dispatcher(yard, yard.registry).execute
        yard.events.subscribe(self._keep)

    def _keep(self, message: dict[str, Any]) -> None:
        self.events.append((message["event"], message["data"]))

    async def __call__(self, command: str, /, **arguments: Any) -> Any:
        return await self._execute(
            command, {name.replace("_", "-"): value for name, value in arguments.items()}
        )

    async def refused(self, text: str, command: str, /, **arguments: Any) -> None:
        with pytest.raises(BlockyardError) as caught:
            await self(command, **arguments)
        assert str(caught.value) == text

    async def add(self, name: str, /, driver: str = "book", **more: Any) -> None:
        more.setdefault("node_name", name.strip("/"))
        more.setdefault("file", {"driver": "file", "filename": name})
        await self("blockdev-add", driver=driver, **more)

    async def node(self, name: str, **more: Any) -> dict[str, Any]:
        infos = await self("query-named-block-nodes", **more)
        found: dict[str, Any] = next(info for info in infos if info["node-name"] == name)
        return found

    async def ended(self, job: str) -> dict[str, Any]:
        """The job as query-jobs tells of it when it has concluded."""
        with anyio.fail_after(10):
            while True:
                (found,) = [each for each in await self("query-jobs") if each["id"] == job]
                if found["status"] == "concluded":
                    return dict(found)
                await anyio.sleep(0.01)

    def statuses(self) -> list[str]:
        return [data["status"] for name, data in self.events if name == "JOB_STATUS_CHANGE"]


@pytest.fixture(autouse=True)
def shelf() -> Iterator[None]:
    SHELF.clear()
    BookDriver.amended.clear()
    yield
    SHELF.clear()


@pytest.fixture
async def qmp() -> AsyncIterator[Monitor]:
    async with Yard(registry=book_registry()) as yard:
        yield Monitor(yard)


# -- x-blockdev-amend


async def test_amend_is_a_job(qmp: Monitor) -> None:
    put("/n")
    await qmp.add("/n")

    options = {"driver": "book", "ink": "red"}
    await qmp("x-blockdev-amend", job_id="j", node_name="n", options=options, force=True)

    assert await qmp.ended("j") == {
        "id": "j",
        "type": "amend",
        "status": "concluded",
        "current-progress": 1,
        "total-progress": 1,
    }
    assert BookDriver.amended == [("red", True)]
    await qmp("job-dismiss", id="j")
    assert qmp.statuses() == ["created", "running", "waiting", "pending", "concluded", "null"]
    await qmp("blockdev-del", node_name="n")


async def test_amend_that_fails_says_so_in_the_job(qmp: Monitor) -> None:
    put("/n")
    await qmp.add("/n")

    options = {"driver": "book", "ink": "none"}
    await qmp("x-blockdev-amend", job_id="j", node_name="n", options=options)

    assert (await qmp.ended("j"))["error"] == "there must be ink"
    assert qmp.statuses() == ["created", "running", "aborting", "concluded"]
    assert not BookDriver.amended
    await qmp("blockdev-del", node_name="n")


async def test_amend_that_is_refused_leaves_no_job(qmp: Monitor) -> None:
    put("/n", sealed=True)
    await qmp.add("/n")
    await qmp.add("/n", driver="raw", node_name="raw")
    amend = "x-blockdev-amend"
    book = {"driver": "book"}

    for text, node, options in (
        ("Cannot find device='' nor node-name='x'", "x", book),
        ("x-blockdev-amend doesn't support changing the block driver", "raw", book),
        ("Driver does not support x-blockdev-amend", "raw", {"driver": "raw"}),
        ("the book is sealed", "n", book),
    ):
        await qmp.refused(text, amend, job_id="j", node_name=node, options=options)
    await qmp.refused("Invalid job ID '_'", amend, job_id="_", node_name="n", options=book)

    assert await qmp("query-jobs") == []
    assert qmp.statuses() == ["created", "null"]
    await qmp("blockdev-del", node_name="n")


async def test_a_node_stays_while_it_is_amended(
    qmp: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = anyio.Event()

    async def amend(self: BookDriver, options: Any, *, force: bool) -> None:
        await gate.wait()

    monkeypatch.setattr(BookDriver, "amend", amend)
    put("/n")
    await qmp.add("/n")
    await qmp("x-blockdev-amend", job_id="j", node_name="n", options={"driver": "book"})
    await qmp.refused("Block device n is in use", "blockdev-del", node_name="n")
    gate.set()
    await qmp.ended("j")
    await qmp("blockdev-del", node_name="n")


# -- internal snapshots


async def test_snapshots_are_made_told_and_deleted(qmp: Monitor) -> None:
    put("/n")
    await qmp.add("/n")
    await qmp.add("/n", driver="raw", node_name="raw", file="n")

    await qmp("blockdev-snapshot-internal-sync", device="raw", name="one")
    await qmp("blockdev-del", node_name="raw")
    await qmp("blockdev-snapshot-internal-sync", device="n", name="two")

    told = (await qmp.node("n"))["image"]["snapshots"]
    assert [(each["id"], each["name"]) for each in told] == [("1", "one"), ("2", "two")]
    assert told[0]["vm-clock-sec"] == told[0]["date-sec"] > 1_600_000_000
    deleted = await qmp("blockdev-snapshot-delete-internal-sync", device="n", name="one")
    assert deleted == told[0]
    await qmp("blockdev-snapshot-delete-internal-sync", device="n", id="2", name="two")
    assert "snapshots" not in (await qmp.node("n"))["image"]


async def test_bad_snapshots_are_refused(qmp: Monitor) -> None:
    put("/n")
    put("/ro")
    await qmp.add("/n")
    await qmp.add("/ro", read_only=True)
    await qmp.add("/n", driver="raw", node_name="raw")
    await qmp("blockdev-snapshot-internal-sync", device="n", name="s1")

    make, delete = "blockdev-snapshot-internal-sync", "blockdev-snapshot-delete-internal-sync"
    for text, device, name in (
        ("Cannot find device='x' nor node-name='x'", "x", "s"),
        ("Snapshot with name 's1' already exists on device 'n'", "n", "s1"),
        ("Name is empty", "n", ""),
        ("Device 'ro' is read only", "ro", "s"),
        (
            "Block format 'raw' used by device 'raw' does not support internal snapshots",
            "raw",
            "s",
        ),
        (
            "Failed to create snapshot 'bad' on device 'n': No space left on device",
            "n",
            "bad",
        ),
    ):
        await qmp.refused(text, make, device=device, name=name)
    for text, arguments in (
        ("Name or id must be provided", {}),
        ("Snapshot with id 'null' and name 'x' does not exist on device 'n'", {"name": "x"}),
        ("Snapshot with id '7' and name 'null' does not exist on device 'n'", {"id": "7"}),
        (
            "Snapshot with id '1' and name 's2' does not exist on device 'n'",
            {"id": "1", "name": "s2"},
        ),
    ):
        await qmp.refused(text, delete, device="n", **arguments)
    text = "Failed to get a snapshot list: Operation not supported"
    await qmp.refused(text, delete, device="raw", name="s1")
    assert len(header_of("/n")["snapshots"]) == 1


async def test_only_the_top_of_a_tree_is_snapshot(qmp: Monitor) -> None:
    put("/base")
    put("/top", backing="base", format="book")
    await qmp.add("/base")
    await qmp.add("/top", backing="base")

    command = "blockdev-snapshot-internal-sync"
    await qmp.refused("Need a root block node", command, device="base", name="s")


async def test_an_aborted_transaction_deletes_its_snapshot(qmp: Monitor) -> None:
    put("/n")
    await qmp.add("/n")

    tran = Transaction()
    await take(qmp.yard.graph, BlockdevSnapshotInternal(device="n", name="s"), tran)
    assert header_of("/n")["snapshots"]
    await tran.abort()

    assert header_of("/n")["snapshots"] == []


# -- change-backing-file


async def test_the_header_gets_the_new_name(qmp: Monitor) -> None:
    put("/base")
    put("/mid", backing="base", format="book")
    put("/top", backing="mid", format="book")
    await qmp.add("/top")
    mid = qmp.yard.graph.find("top").children["backing"].node

    change = "change-backing-file"
    await qmp(change, device="top", image_node_name="top", backing_file="./mid")
    await qmp(change, device="top", image_node_name=mid.name, backing_file="new")

    assert (header_of("/top")["backing"], header_of("/top")["format"]) == ("./mid", "book")
    await qmp(change, device="top", image_node_name="top", backing_file="")
    assert (header_of("/top")["backing"], header_of("/top")["format"]) == (None, None)
    assert "backing-filename" not in (await qmp.node("top"))["image"]
    await qmp(change, device="top", image_node_name="top", backing_file="./mid")
    assert header_of("/mid")["backing"] == "new"
    assert mid.read_only
    assert mid.children["file"].node.read_only
    image = (await qmp.node("top"))["image"]
    assert image["backing-filename"] == "./mid"
    assert image["full-backing-filename"] == "/./mid"
    assert image["filename"].startswith('json:{"backing": {"backing": ')
    assert image["backing-image"]["full-backing-filename"] == "/new"


async def test_bad_changes_of_backing_files_are_refused(qmp: Monitor) -> None:
    put("/base")
    put("/top", backing="base", format="book")
    await qmp.add("/top")
    await qmp.add("/base", driver="raw", node_name="other", read_only=True)
    change = "change-backing-file"

    for text, device, node, file in (
        ("Cannot find device='x' nor node-name='x'", "x", "top", "f"),
        ("Cannot find device='' nor node-name='x'", "top", "x", "f"),
        (
            "not allowing backing file change on an image without a backing file",
            "top",
            "other",
            "f",
        ),
        ("'other' and image file are not in the same chain", "other", "top", "f"),
        (
            f"Could not change backing file to '{'f' * 1024}': Invalid argument",
            "top",
            "top",
            "f" * 1024,
        ),
    ):
        await qmp.refused(text, change, device=device, image_node_name=node, backing_file=file)
    assert header_of("/top")["backing"] == "base"


# -- what is told


async def test_the_chain_is_told_with_its_names(qmp: Monitor) -> None:
    put("/d/base", size=4096)
    put("/d/top", backing="base", format="book")
    await qmp.add("/d/top", node_name="top")

    info = await qmp.node("top")

    assert info["file"] == "/d/top"
    assert info["backing_file"] == "/d/base"
    assert info["backing_file_depth"] == 1
    assert [each["child"] for each in info["children"]] == ["backing", "file"]
    image = info["image"]
    assert image["filename"] == "/d/top"
    assert image["backing-filename"] == "base"
    assert image["full-backing-filename"] == "/d/base"
    assert image["backing-filename-format"] == "book"
    assert image["backing-image"]["filename"] == "/d/base"
    assert image["backing-image"]["virtual-size"] == 4096
    assert "backing-filename" not in image["backing-image"]
    flat = (await qmp.node("top", flat=True))["image"]
    assert "backing-image" not in flat
    assert flat["full-backing-filename"] == "/d/base"


@pytest.mark.parametrize("way", ["none", "other", "same"])
async def test_another_backing_file_shows_in_the_name(qmp: Monitor, way: str) -> None:
    put("/base")
    put("/other")
    put("/top", backing="/base", format="book")
    if way == "none":
        await qmp.add("/top", backing=None)
    else:
        await qmp.add("/base" if way == "same" else "/other", node_name="under")
        await qmp.add("/top", backing="under")

    info = await qmp.node("top")

    assert (
        info["file"]
        == {
            "none": 'json:{"backing": null, "driver": "book", '
            '"file": {"driver": "file", "filename": "/top"}}',
            "other": 'json:{"backing": {"driver": "book", "file": {"driver": "file", "filename": '
            '"/other"}}, "driver": "book", "file": {"driver": "file", "filename": "/top"}}',
            "same": "/top",
        }[way]
    )
    assert info["image"]["backing-filename"] == "/base"


async def test_strong_options_show_in_the_name(qmp: Monitor) -> None:
    put("/base")
    put("/top", backing="/base", format="book")
    await qmp.add("/top", ink="blue")

    assert (await qmp.node("top"))["file"] == (
        'json:{"driver": "book", "ink": "blue", "file": {"driver": "file", "filename": "/top"}}'
    )


async def test_a_deep_chain_is_told(qmp: Monitor) -> None:
    put("/0")
    for number in range(1, 150):
        put(f"/{number}", backing=str(number - 1), format="book")
    below = {"driver": "book", "file": {"driver": "file", "filename": "/148"}}
    await qmp.add("/149", backing=below, node_name="top")

    image, depth = (await qmp.node("top"))["image"], 0
    while "backing-image" in image:
        image, depth = image["backing-image"], depth + 1
    assert depth == 149
    assert image["filename"] == "/0"


# -- corruption


async def test_corruption_is_an_event(qmp: Monitor) -> None:
    put("/n")
    await qmp.add("/n")
    node = qmp.yard.graph.find("n")

    report_corruption(node, "L2 entry is odd", fatal=False)
    report_corruption(node, "overlap", offset=512, size=65536, fatal=True)

    assert qmp.events[-2:] == [
        (
            "BLOCK_IMAGE_CORRUPTED",
            {"device": "", "node-name": "n", "msg": "L2 entry is odd", "fatal": False},
        ),
        (
            "BLOCK_IMAGE_CORRUPTED",
            {
                "device": "",
                "node-name": "n",
                "msg": "overlap",
                "offset": 512,
                "size": 65536,
                "fatal": True,
            },
        ),
    ]
