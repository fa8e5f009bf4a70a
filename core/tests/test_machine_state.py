# SPDX-License-Identifier: Apache-2.0
"""A driver that keeps no machine's state asks its primary child."""

import errno
from typing import Any

import pytest

from blockyard.errors import ImageIOError
from blockyard.yard import Yard

pytestmark = pytest.mark.anyio


async def test_a_driver_asks_its_primary_child(yard: Yard, monkeypatch: Any) -> None:
    async with await yard.open(driver="form", file={"driver": "mem"}) as image:
        below = image.node.children["file"].node.driver
        saved: dict[int, bytes] = {}

        async def save(offset: int, view: Any) -> None:
            saved[offset] = bytes(view)

        async def load(offset: int, view: Any) -> None:
            view[:] = saved[offset]

        monkeypatch.setattr(below, "save_machine_state", save)
        monkeypatch.setattr(below, "load_machine_state", load)
        await image.node.driver.save_machine_state(512, b"state")
        buffer = bytearray(5)
        await image.node.driver.load_machine_state(512, buffer)
        assert buffer == b"state"


async def test_without_any_it_is_not_supported(yard: Yard) -> None:
    async with await yard.open(driver="form", file={"driver": "mem"}) as image:
        driver = image.node.driver
        assert driver.machine_state_offset() == 0
        for call in (driver.save_machine_state, driver.load_machine_state):
            with pytest.raises(ImageIOError) as caught:
                await call(0, bytearray(512))
            assert caught.value.errno == errno.ENOTSUP
