# SPDX-License-Identifier: Apache-2.0
"""Internal snapshots: what the table says of them, and the native half's work on them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from blockyard.errors import ImageIOError, NotFound, from_errno
from blockyard.schema.blockinfo import SnapshotInfo
from blockyard_formats_qcow2.image import Why, aside
from blockyard_formats_qcow2.native import ffi, lib

if TYPE_CHECKING:
    from blockyard_formats_qcow2.image import OpenImage

__all__ = ["apply", "create", "delete", "find", "listed", "show"]

_NANO = 1_000_000_000
_NO_ICOUNT = (1 << 64) - 1
_ENOENT, _EINVAL, _ERANGE = 2, 22, 34


async def listed(image: OpenImage) -> list[SnapshotInfo]:
    """The snapshots, in the table's order.

    :raises ImageIOError: with QEMU's text, if the table is bad.
    """
    why, error = Why(), ffi.new("int *")
    native = await aside(lib.by_qcow2_snapshots_read, image.native, error, why.native)
    if native == ffi.NULL:
        raise why.error(error[0], "Failed to read snapshot table")
    try:
        return [_info(native.entries[i]) for i in range(native.count)]
    finally:
        lib.by_qcow2_snapshots_free(native)


def _info(entry: Any) -> SnapshotInfo:
    seconds, nanoseconds = divmod(entry.vm_clock_nsec, _NANO)
    return SnapshotInfo(
        id=os.fsdecode(ffi.unpack(entry.id, entry.id_bytes)) if entry.id_bytes else "",
        name=os.fsdecode(ffi.unpack(entry.name, entry.name_bytes)) if entry.name_bytes else "",
        vm_state_size=entry.vm_state_bytes,
        date_sec=entry.date_sec,
        date_nsec=entry.date_nsec,
        vm_clock_sec=seconds,
        vm_clock_nsec=nanoseconds,
        icount=None if entry.icount == _NO_ICOUNT else entry.icount,
    )


async def create(image: OpenImage, name: str, info: SnapshotInfo) -> SnapshotInfo:
    """A snapshot of the disk as it is; answers it as the table has it.

    :raises ImageIOError: if it fails; nothing is left of it then.
    """
    encoded = os.fsencode(name)
    text = ffi.new("char[]", encoded)
    entry = ffi.new(
        "struct by_qcow2_snapshot *",
        {
            "name": text,
            "name_bytes": len(encoded),
            "date_sec": info.date_sec & 0xFFFFFFFF,
            "date_nsec": info.date_nsec,
            "vm_clock_nsec": info.vm_clock_sec * _NANO + info.vm_clock_nsec,
            "vm_state_bytes": info.vm_state_size,
            "icount": _NO_ICOUNT if info.icount is None else info.icount,
        },
    )
    try:
        await image.explained(lib.by_qcow2_snapshot_create, entry)
    except ImageIOError as error:
        if error.errno == _ERANGE:
            # A refcount that its width does not hold, as QEMU tells it.
            raise from_errno(_EINVAL) from error
        raise
    return (await listed(image))[-1]


def find(snapshots: list[SnapshotInfo], snapshot_id: str | None, name: str | None) -> int | None:
    """The number of the snapshot with this id, this name, or both; None if there is none."""
    for number, each in enumerate(snapshots):
        if snapshot_id in (None, each.id) and name in (None, each.name):
            return number
    return None


async def delete(image: OpenImage, snapshot_id: str | None, name: str | None) -> SnapshotInfo:
    """Delete the snapshot with this id, this name, or both; answers what it was.

    :raises NotFound: with QEMU's text.
    :raises ImageIOError: if it fails.
    """
    snapshots = await listed(image)
    number = find(snapshots, snapshot_id, name)
    if number is None:
        raise NotFound("Can't find the snapshot")
    await image.explained(lib.by_qcow2_snapshot_delete, number)
    return snapshots[number]


async def _by_id_or_name(image: OpenImage, id_or_name: str) -> int:
    snapshots = await listed(image)
    number = find(snapshots, id_or_name, None)
    if number is None:
        number = find(snapshots, None, id_or_name)
    if number is None:
        raise from_errno(_ENOENT)
    return number


async def apply(image: OpenImage, id_or_name: str) -> None:
    """Make the disk what it was in a snapshot, its length too.

    :raises ImageIOError: ENOENT if there is none.
    """
    number = await _by_id_or_name(image, id_or_name)
    await image.explained(lib.by_qcow2_snapshot_apply, number)


async def show(image: OpenImage, id_or_name: str, *, with_size: bool) -> None:
    """Show the snapshot in place of the disk; the image is open for reading.

    ``with_size``: with the length that it had.

    :raises ImageIOError: ENOENT if there is none.
    """
    number = await _by_id_or_name(image, id_or_name)
    await image.explained(lib.by_qcow2_snapshot_load, number, with_size)


async def show_exactly(image: OpenImage, snapshot_id: str | None, name: str | None) -> None:
    """Show the snapshot with this id, this name, or both in place of the disk, as :func:`show`.

    The length stays what it is.

    :raises NotFound: with QEMU's text.
    :raises ImageIOError: if it fails.
    """
    number = find(await listed(image), snapshot_id, name)
    if number is None:
        raise NotFound("Can't find snapshot")
    await image.explained(lib.by_qcow2_snapshot_load, number, False)
