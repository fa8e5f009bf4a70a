# SPDX-License-Identifier: Apache-2.0
"""The state of a machine behind the disk's end, exchanged with qemu-io."""

import random

import pytest

from blockyard import Yard

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """One event loop is enough here."""
    return "asyncio"


SHAPES = ["cluster_size=64k", "cluster_size=512", "cluster_size=16k,extended_l2=on"]


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_state_is_qemus(tmp_path, qemu_img, qemu_io, shape):
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", shape, path, "16M")
    qemu_io(path, "write -q -P 7 0 1M", "write -q -b -P 3 0 128k")
    state = bytes(random.Random(1).randbytes(70000))
    async with Yard() as yard:
        options = {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}
        async with await yard.open(options) as image:
            driver = image.node.driver
            seen = bytearray(128 << 10)
            await driver.load_machine_state(0, seen)
            assert seen == b"\3" * len(seen)
            await driver.save_machine_state(3 << 20, state)
            await driver.load_machine_state(3 << 20, memoryview(seen)[: len(state)])
            assert seen[: len(state)] == state
            assert image.length == 16 << 20
            assert await image.read(0, 1 << 20) == b"\7" * (1 << 20)
    qemu_img("check", path)
    qemu_io(path, "read -q -b -P 3 0 128k", "read -q -P 7 0 1M", "read -q -P 0 1M 15M")


async def test_state_that_no_table_reaches_is_refused(tmp_path, qemu_img):
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-f", "qcow2", path, "16M")
    async with Yard() as yard:
        options = {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}
        async with await yard.open(options) as image:
            with pytest.raises(OSError, match="File too large"):
                await image.node.driver.save_machine_state((1 << 63) - 512, bytes(512))
            with pytest.raises(OSError, match="File too large"):
                await image.node.driver.save_machine_state(1 << 60, bytes(512))
            await image.write(0, bytes(512))
    qemu_img("check", path)
