# SPDX-License-Identifier: Apache-2.0
"""Breakpoints go down the primary children to the driver that listens."""

import errno
from typing import Any

import pytest

from blockyard.errors import ImageIOError
from blockyard.yard import Yard

pytestmark = pytest.mark.anyio


async def test_a_driver_asks_its_primary_child(yard: Yard, monkeypatch: Any) -> None:
    async with await yard.open(driver="form", node_name="top", file={"driver": "mem"}) as image:
        below = image.node.children["file"].node.driver
        calls: list[tuple[str, ...]] = []
        monkeypatch.setattr(below, "debug_breakpoint", lambda *words: calls.append(words))
        monkeypatch.setattr(below, "debug_remove_breakpoint", lambda tag: calls.append((tag,)))
        monkeypatch.setattr(below, "debug_resume", lambda tag: calls.append((tag,)))
        monkeypatch.setattr(below, "debug_is_suspended", lambda tag: tag == "A")
        image.node.driver.debug_breakpoint("l2_load", "A")
        assert image.node.driver.debug_is_suspended("A")
        assert not image.node.driver.debug_is_suspended("B")
        image.node.driver.debug_resume("A")
        image.node.driver.debug_remove_breakpoint("B")
        assert calls == [("l2_load", "A"), ("A",), ("B",)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("debug_breakpoint", ("l2_load", "A")),
        ("debug_remove_breakpoint", ("A",)),
        ("debug_resume", ("A",)),
        ("debug_is_suspended", ("A",)),
    ],
)
async def test_where_nobody_listens_it_is_not_supported(
    yard: Yard, name: str, words: tuple[str, ...]
) -> None:
    async with await yard.open(driver="form", file={"driver": "mem"}) as image:
        with pytest.raises(ImageIOError) as caught:
            getattr(image.node.driver, name)(*words)
    assert caught.value.errno == errno.ENOTSUP
