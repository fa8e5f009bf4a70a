# SPDX-License-Identifier: Apache-2.0
"""Opening images by their names, formats found out."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from book import SHELF, book_registry, put

from blockyard.errors import BlockyardError
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


async def test_the_format_is_looked_for_in_the_image(yard: Yard) -> None:
    put("/a/top")

    async with await yard.open_named("/a/top") as image:
        assert image.node.type.name == "book"
        assert image.node.driver.guarded
    assert not yard.graph.nodes


async def test_the_backing_file_may_stay_closed(yard: Yard) -> None:
    put("/a/base")
    put("/a/top", backing="base", format="book")

    async with await yard.open_named("/a/top", "book", backing=False) as image:
        assert list(image.node.children) == ["file"]
    async with await yard.open_named("/a/top", "book") as image:
        assert "backing" in image.node.children


async def test_what_the_name_says_comes_before_defaults_and_after_options(yard: Yard) -> None:
    put("/a/top")
    name = 'json:{"driver":"book","read-only":true,"file":{"driver":"file","filename":"/a/top"}}'

    async with await yard.open_named(name, defaults={"read-only": False}) as image:
        assert image.read_only
    async with await yard.open_named(name, None, {"read-only": "off"}) as image:
        assert not image.read_only


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        (None, {}, "Must specify either driver or file"),
        (None, {"file": "nobody"}, "Cannot find device='nobody' nor node-name='nobody'"),
        ("nope:x", {}, "Unknown protocol 'nope'"),
        ("json:{}", {}, "Must specify either driver or file"),
    ],
)
async def test_what_names_nothing_is_refused(
    yard: Yard, name: str | None, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(BlockyardError) as caught:
        await yard.open_named(name, None, options)

    assert str(caught.value) == text
    assert not yard.graph.nodes
