# SPDX-License-Identifier: Apache-2.0
"""blockdev-create of files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from blockyard.errors import BlockyardError, PermissionConflict
from blockyard.fdset import FD_SETS
from blockyard_drivers_file.driver import FileDriver, HostDeviceDriver
from blockyard_drivers_file.native import lib
from blockyard_drivers_file.schema import BlockdevCreateOptionsFile

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def create(path: Path | str, size: int = MIB, **more: Any) -> None:
    options = BlockdevCreateOptionsFile(filename=str(path), size=size, **more)
    anyio.run(FileDriver.create, options, None)


def refusal(path: Path | str, **more: Any) -> str:
    with pytest.raises(BlockyardError) as caught:
        create(path, **more)
    return str(caught.value)


@pytest.mark.parametrize("prealloc", [None, "off", "falloc", "full"])
def test_a_new_file(tmp_path: Path, prealloc: str | None) -> None:
    path = tmp_path / "new.img"
    create(path, preallocation=prealloc, nocow=True, extent_size_hint=0)
    assert path.read_bytes() == bytes(MIB)
    assert (path.stat().st_blocks * 512 >= MIB) is (prealloc in ("falloc", "full"))
    assert path.stat().st_mode & 0o133 == 0


def test_an_old_file_is_emptied(image: Path) -> None:
    create(image, size=1000)
    assert image.read_bytes() == bytes(1000)


def test_a_used_file_is_left_alone(image: Path) -> None:
    data = image.read_bytes()
    holder = os.open(image, os.O_RDWR)
    lib.by_file_lock(holder, 203)
    try:
        with pytest.raises(PermissionConflict, match='Failed to get "resize" lock'):
            create(image)
    finally:
        os.close(holder)
    assert image.read_bytes() == data


def test_what_cannot_be_made(tmp_path: Path, small_disk: Path) -> None:
    assert refusal("/nonexistent/x") == (
        "Could not create '/nonexistent/x': No such file or directory"
    )
    assert refusal(tmp_path) == f"Could not create '{tmp_path}': Is a directory"
    path = tmp_path / "x"
    assert refusal(path, extent_size_hint=1 << 32) == "Extent size hint is too large"
    assert not path.exists()
    assert refusal(path, preallocation="metadata") == "Unsupported preallocation mode: metadata"
    assert refusal(path, size=(1 << 63)) == "Could not resize file: File too large"
    small = small_disk / "x"
    assert refusal(small, size=4 * MIB, preallocation="falloc") == (
        "Could not preallocate new data: No space left on device"
    )
    assert refusal(small, size=4 * MIB, preallocation="full") == (
        "Could not write zeros for preallocation: No space left on device"
    )


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert "Could not resize file" in refusal(fifo)


def test_a_passed_descriptor(image: Path) -> None:
    found = FD_SETS.add(os.open(image, os.O_RDWR))
    try:
        create(f"/dev/fdset/{found.id}", size=512)
        with image.open("rb") as file:
            assert not any(lib.by_file_lock_test(file.fileno(), n) for n in range(100, 204))
    finally:
        FD_SETS.remove(found.id)
    assert image.read_bytes() == bytes(512)
    assert FD_SETS.query() == []


def test_devices_are_not_created() -> None:
    with pytest.raises(BlockyardError, match="Driver does not support blockdev-create"):
        anyio.run(HostDeviceDriver.create, None, None)
