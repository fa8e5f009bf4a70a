# SPDX-License-Identifier: Apache-2.0
"""Opening what images name: backing files and other children."""

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from book import SHELF, BookDriver, ShelfDriver, book_registry, put

from blockyard.errors import BlockyardError
from blockyard.node import Driver, Node
from blockyard.permission import Perm
from blockyard.schema import visit
from blockyard.schema.block import BlockdevOptions
from blockyard.yard import Yard

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def shelf() -> Iterator[None]:
    SHELF.clear()
    yield
    SHELF.clear()


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    async with Yard(registry=book_registry()) as made:
        yield made


async def add(yard: Yard, name: str, /, **more: Any) -> Node:
    options = {"driver": "book", "file": {"driver": "file", "filename": name}, **more}
    return await yard.graph.add(visit(BlockdevOptions, options))


async def refused(yard: Yard, name: str, text: str, **more: Any) -> None:
    with pytest.raises(BlockyardError) as caught:
        await add(yard, name, **more)
    assert str(caught.value) == text
    assert not yard.graph.nodes


def chain(node: Node) -> list[str]:
    """The names of the files below, and the formats that they are read as."""
    found = []
    while "backing" in node.children:
        node = node.children["backing"].node
        found.append(f"{node.type.name}:{node.children['file'].node.driver.exact_filename()}")
    return found


async def test_a_recorded_backing_file_is_opened_read_only(yard: Yard) -> None:
    put("/a/base")
    put("/a/mid", backing="base", format="book")
    put("/b/top", backing="/a/mid", format="book")

    top = await add(yard, "/b/top", **{"node-name": "top"})

    assert chain(top) == ["book:/a/mid", "book:/a/base"]
    mid = top.children["backing"].node
    assert mid.read_only
    assert mid.inherits_from is top
    assert not top.read_only
    await yard.graph.delete("top")
    assert not yard.graph.nodes


async def test_nodes_are_named_in_the_order_of_the_chain(yard: Yard) -> None:
    put("/a/base")
    put("/a/top", backing="base", format="book")

    top = await add(yard, "/a/top", **{"node-name": "top"})

    base = top.children["backing"].node
    order = list(yard.graph.nodes.values())
    assert order == [top.children["file"].node, top, base.children["file"].node, base]


async def test_a_recorded_format_is_not_guessed(yard: Yard) -> None:
    put("/base")
    put("/top", backing="base", format="raw")

    assert chain(await add(yard, "/top")) == ["raw:/base"]


async def test_a_format_that_is_not_recorded_is_guessed(yard: Yard) -> None:
    put("/base")
    SHELF["/plain"] = bytearray(1024)
    SHELF["/empty"] = bytearray()
    put("/top", backing="base")
    put("/over", backing="plain")
    put("/nothing", backing="empty")

    top, over, nothing = [await add(yard, name) for name in ("/top", "/over", "/nothing")]

    assert [chain(each) for each in (top, over, nothing)] == [
        ["book:/base"],
        ["raw:/plain"],
        ["raw:/empty"],
    ]
    assert over.children["backing"].node.driver.guarded
    file = over.children["backing"].node.children["file"].node
    assert file.read_only
    assert file.inherits_from is over.children["backing"].node


async def test_a_mark_of_a_format_that_is_missing_is_not_taken_for_raw(yard: Yard) -> None:
    SHELF["/disk"] = bytearray(b"KDMV" + bytes(1020))
    put("/top", backing="disk")

    await refused(yard, "/top", "Could not open backing file: Unknown driver 'vmdk'")


async def test_null_keeps_the_recorded_file_closed(yard: Yard) -> None:
    put("/top", backing="/nowhere", format="book")

    assert chain(await add(yard, "/top", backing=None)) == []


async def test_options_come_before_the_header(yard: Yard) -> None:
    put("/mine")
    put("/top", backing="/nowhere", format="book")
    mine = {"driver": "book", "file": {"driver": "file", "filename": "/mine"}}

    assert chain(await add(yard, "/top", backing=mine)) == ["book:/mine"]


async def test_a_missing_file_is_told_with_every_step(yard: Yard) -> None:
    put("/mid", backing="nowhere", format="raw")
    put("/top", backing="mid", format="book")

    await refused(
        yard,
        "/top",
        "Could not open backing file: Could not open backing file: "
        "Could not open '/nowhere': No such file or directory",
    )


@pytest.mark.parametrize(
    ("name", "fmt", "found"),
    [
        ("file:/base", "book", "book:/base"),
        ("shelf:/base", "book", "book:/base"),
        ("/with:colon", "raw", "raw:/with:colon"),
        ("./with:colon", "raw", "raw:/./with:colon"),
        ('json:{"driver":"book","file":{"driver":"file","filename":"/base"}}', "", "book:/base"),
        ('json:{"file":{"filename":"/base"}}', "", "book:/base"),
        ('json:{"driver":"book","file.filename":"/base"}', "", "book:/base"),
        ('json:{"driver":"book","file":{"filename":"/base"}}', "raw", "raw:/base"),
        ('json:{"driver":"raw","file":{"filename":"json:{}"}}', "", "raw:json:{}"),
        ('json:{"file.filename":"/base","read-only":"on"}', "book", "book:/base"),
        ('json:{"file.filename":"/base","read-only":true}', "book", "book:/base"),
    ],
)
async def test_names_open_what_they_say(yard: Yard, name: str, fmt: str, found: str) -> None:
    put("/base")
    for odd in ("/with:colon", "/./with:colon", "json:{}"):
        SHELF[odd] = bytearray(512)
    put("/top", backing=name, format=fmt)

    assert chain(await add(yard, "/top")) == [found]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nbs:host", "Could not open backing file: Unknown protocol 'nbs'"),
        ("json:{", "Could not open backing file: Could not parse the JSON options: "),
        ("json:[]", "Could not open backing file: Invalid JSON object given"),
        ("json:{}", "Could not open backing file: Must specify either driver or file"),
        ('json:{"driver":"x"}', "Could not open backing file: Unknown driver 'x'"),
        (
            'json:{"driver":"book"}',
            'Could not open backing file: A block device must be specified for "file"',
        ),
        ('json:{"driver":7}', "Could not open backing file: Unknown driver '7'"),
        ('json:{"file.filename":"/top","node-name":null}', "Could not open backing file: "),
        ('json:{"file":{}}', "Could not open backing file: Must specify either driver or file"),
        ('json:{"a":1,"a.b":2}', "Could not open backing file: Option 'a' is both"),
        (
            "json:" + json.dumps({".".join(["file"] * 300): 1}),
            "Could not open backing file: Block nodes are nested deeper than 200",
        ),
        ("json:" + '{"a":' * 300, "Could not open backing file: Could not parse"),
    ],
)
async def test_bad_names_are_refused(yard: Yard, name: str, text: str) -> None:
    put("/top", backing=name)

    with pytest.raises(BlockyardError) as caught:
        await add(yard, "/top")
    assert str(caught.value).startswith(text)
    assert not yard.graph.nodes


async def test_a_relative_name_needs_a_folder(yard: Yard) -> None:
    put("/top", backing="base", format="raw")
    SHELF["base"] = bytearray(512)
    SHELF["plain"] = SHELF["/top"]

    assert chain(await add(yard, "plain")) == ["raw:base"]


async def test_loops_are_refused(yard: Yard) -> None:
    put("/a", backing="b", format="book")
    put("/b", backing="./a", format="book")

    await refused(
        yard,
        "/a",
        "Could not open backing file: Backing file '/./a' creates an infinite loop.",
    )


async def test_a_loop_by_other_names_ends_at_the_depth(yard: Yard) -> None:
    put("/a", backing="/b", format="book")
    SHELF["/b"] = SHELF["/a"]
    SHELF["/c"] = SHELF["/a"]
    put("/deep0", backing="deep1", format="book")
    for number in range(1, 220):
        put(f"/deep{number}", backing=f"deep{number + 1}", format="book")

    with pytest.raises(BlockyardError, match="nested deeper than 200"):
        await add(yard, "/deep0")
    assert not yard.graph.nodes


async def test_a_child_that_the_header_names_is_opened(yard: Yard) -> None:
    put("/base")
    put("/top", appendix="/more", backing="base", format="book")
    SHELF["/more"] = bytearray(512)
    SHELF["/other"] = bytearray(512)
    other = {"driver": "file", "filename": "/other"}

    top = await add(yard, "/top", **{"node-name": "top"})

    assert list(top.children) == ["file", "appendix", "backing"]
    assert top.children["appendix"].node.driver.exact_filename() == "/more"
    await yard.graph.delete("top")
    top = await add(yard, "/top", appendix=other)
    assert top.children["appendix"].node.driver.exact_filename() == "/other"
    none = await add(yard, "/top", appendix=None, **{"read-only": True, "force-share": True})
    assert list(none.children) == ["file", "backing"]


async def test_a_bad_header_leaves_nothing(yard: Yard) -> None:
    SHELF["/top"] = bytearray(8192)

    await refused(yard, "/top", "Image is not a book")


async def test_a_deep_chain_is_opened_and_used(yard: Yard) -> None:
    put("/0")
    for number in range(1, 101):
        put(f"/{number}", backing=str(number - 1), format="book")

    top = await add(yard, "/100", **{"node-name": "top"})

    assert len(chain(top)) == 100
    root = await yard.graph.attach_root(top, Perm.CONSISTENT_READ | Perm.WRITE)
    bottom = top
    while "backing" in bottom.children:
        bottom = bottom.children["backing"].node
    assert bottom.parents[0].perm == Perm.CONSISTENT_READ
    assert bottom.children["file"].perm == Perm.CONSISTENT_READ
    assert top.children["file"].perm & Perm.WRITE
    await yard.graph.detach_root(root)
    assert bottom.parents[0].perm == Perm(0)
    await yard.graph.delete("top")
    assert not yard.graph.nodes


async def test_each_node_of_a_chain_is_asked_once_for_each_of_its_users(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()

    async def count(self: Driver, perm: Perm, shared: Perm) -> None:
        asked[self.node.name] += 1

    monkeypatch.setattr(BookDriver, "check_permissions", count)
    monkeypatch.setattr(ShelfDriver, "check_permissions", count)
    put("/0")
    for number in range(1, 60):
        put(f"/{number}", backing=str(number - 1), format="book")

    top = await add(yard, "/59", **{"node-name": "top"})

    # Once when its only user came; the top has none.
    assert set(asked.values()) == {1}
    assert len(asked) == len(yard.graph.nodes) - 1
    asked.clear()
    await yard.graph.detach_root(await yard.graph.attach_root(top, Perm.CONSISTENT_READ))
    assert max(asked.values()) == 2


async def reopen(yard: Yard, **options: Any) -> None:
    await yard.graph.reopen([visit(BlockdevOptions, {"driver": "book", **options})])


async def test_a_reopen_can_leave_a_part_of_the_chain_out(yard: Yard) -> None:
    put("/base")
    put("/mid", backing="base", format="book")
    put("/top", backing="mid", format="book")
    top = await add(yard, "/top", **{"node-name": "top"})
    file = top.children["file"].node.name
    mid = top.children["backing"].node
    base = mid.children["backing"].node

    await reopen(yard, **{"node-name": "top", "file": file, "backing": base.name})

    assert chain(top) == ["book:/base"]
    assert base.inherits_from is top
    assert mid.name not in yard.graph.nodes
    await yard.graph.delete("top")
    assert not yard.graph.nodes


async def test_a_reopen_can_take_the_backing_file_away_and_give_another(yard: Yard) -> None:
    put("/base")
    put("/other")
    put("/top", backing="base", format="book")
    top = await add(yard, "/top", **{"node-name": "top"})
    await add(yard, "/other", **{"node-name": "other"})
    file = top.children["file"].node.name

    await reopen(yard, **{"node-name": "top", "file": file, "backing": None})
    assert chain(top) == []
    await reopen(yard, **{"node-name": "top", "file": file, "backing": "other"})

    assert chain(top) == ["book:/other"]
    assert top.children["backing"].perm == Perm(0)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({}, "backing is missing for 'top'"),
        ({"backing": "top"}, "Making 'top' a backing child of 'top' would create a cycle"),
        ({"backing": "above"}, "Making 'above' a backing child of 'top' would create a cycle"),
        ({"backing": "x"}, "Cannot find device='' nor node-name='x'"),
    ],
)
async def test_bad_reopens_change_nothing(yard: Yard, said: dict[str, Any], text: str) -> None:
    put("/base")
    put("/top", backing="base", format="book")
    put("/above")
    top = await add(yard, "/top", **{"node-name": "top"})
    await add(yard, "/above", **{"node-name": "above", "backing": "top"})
    file = top.children["file"].node.name

    with pytest.raises(BlockyardError) as caught:
        await reopen(yard, **{"node-name": "top", "file": file, **said})
    assert str(caught.value) == text
    assert chain(top) == ["book:/base"]


async def test_a_backing_file_is_not_written_by_others_while_it_is_read(yard: Yard) -> None:
    put("/base")
    put("/top", backing="base", format="book")
    await add(yard, "/base", **{"node-name": "base"})
    top = await add(yard, "/top", **{"node-name": "top", "backing": "base"})
    steady = Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED
    reader = await yard.graph.attach_root(top, Perm.CONSISTENT_READ, steady)

    with pytest.raises(BlockyardError, match="Permission conflict on node 'base'"):
        await yard.graph.attach_root(yard.graph.find("base"), Perm.WRITE)
    await yard.graph.detach_root(reader)
    writer = await yard.graph.attach_root(yard.graph.find("base"), Perm.WRITE)
    await yard.graph.detach_root(writer)
