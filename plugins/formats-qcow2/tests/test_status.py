# SPDX-License-Identifier: Apache-2.0
"""What block status tells of an image, as QEMU's map has it."""

import json

from blockyard.request import StatusFlags


def test_subclusters_without_data_have_their_place(tmp_path, place, qemu_img, qemu_io):
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=16k", path, "64k")
    qemu_io(path, "write 3k 1k")
    expected = json.loads(qemu_img("map", "--output=json", path))
    found = []
    with place.open(
        {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}
    ) as image:
        for entry in expected:
            status = place.ask(image.block_status, entry["start"], entry["length"])
            assert status.bytes == entry["length"]
            has_offset = bool(status.flags & StatusFlags.OFFSET)
            found.append((status.data, status.host_offset if has_offset else None))
    assert found == [(entry["data"], entry.get("offset")) for entry in expected]
    assert [entry["start"] for entry in expected if "offset" in entry] == [0, 3072, 4096]
