# SPDX-License-Identifier: Apache-2.0
"""Drivers hear when requests in flight are waited for: in drained sections, and at the end."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from book import SHELF, book_registry, put

from blockyard.driver import Driver
from blockyard.image import Image
from blockyard.yard import Yard

pytestmark = pytest.mark.anyio


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """``+driver`` and ``-driver``, in order."""
    told: list[str] = []
    monkeypatch.setattr(Driver, "hurry_begin", lambda self: told.append(f"+{self.node.type.name}"))
    monkeypatch.setattr(Driver, "hurry_end", lambda self: told.append(f"-{self.node.type.name}"))
    yield told
    SHELF.clear()


@pytest.fixture
async def image(heard: list[str]) -> AsyncIterator[Image]:
    put("a")
    async with Yard(registry=book_registry()) as yard:
        file = {"driver": "file", "filename": "a"}
        image = await yard.open(driver="raw", file=file)
        heard.clear()
        yield image


async def test_a_drained_section_tells_what_it_covers_and_what_is_below(
    image: Image, heard: list[str]
) -> None:
    async with image.drained():
        assert heard == ["+raw", "+file"]
    assert heard == ["+raw", "+file", "-file", "-raw"]


async def test_a_user_that_ends_tells_all_nodes_below(image: Image, heard: list[str]) -> None:
    await image.close()
    assert heard[:4] == ["+raw", "+file", "-file", "-raw"]
    assert sorted(heard) == sorted(word.translate({43: 45, 45: 43}) for word in heard)
