# SPDX-License-Identifier: Apache-2.0
"""Where in the file clusters are put: users see it as the size of a file and as how it is read."""

import json

import anyio
import pytest

MIB = 1 << 20


@pytest.mark.parametrize("options", ["cluster_size=4k", "cluster_size=64k", "extended_l2=on"])
def test_concurrent_writes_lie_in_the_order_in_which_they_began(place, qemu_img, tmp_path, options):
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, "96M")

    async def write(image):
        async with anyio.create_task_group() as group:
            for at in range(0, 96 * MIB, MIB):
                group.start_soon(image.write, at, bytes([at >> 20]) * MIB)

    with place.open(driver="qcow2", file={"driver": "file", "filename": str(path)}) as image:
        place.ask(write, image)
    found = json.loads(qemu_img("map", "--output=json", path))
    offsets = [extent["offset"] for extent in found]
    assert offsets == sorted(offsets)
    assert sum(extent["length"] for extent in found if extent["data"]) == 96 * MIB
    qemu_img("check", path)
