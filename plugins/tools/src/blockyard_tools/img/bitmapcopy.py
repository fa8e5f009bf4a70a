# SPDX-License-Identifier: Apache-2.0
"""``convert --bitmaps``: the persistent bitmaps of one image for another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard import bitmaps
from blockyard.driver import Driver
from blockyard.errors import BlockyardError
from blockyard_tools.img.command import failed
from blockyard_tools.img.session import announce

if TYPE_CHECKING:
    from blockyard.dirtybitmap import DirtyBitmap
    from blockyard.image import Image

__all__ = ["check_bitmaps", "copy_bitmaps"]


def check_bitmaps(source: Image, target: type[Driver], name: str, *, skip_broken: bool) -> None:
    """Refuse what cannot be copied, before anything is made.

    ``target`` and ``name`` are the new image's driver.

    :raises ProgramError: with QEMU's text.
    """
    if type(source.node.driver).can_store_bitmap is Driver.can_store_bitmap:
        raise failed("Source lacks bitmap support")
    if target.can_store_bitmap is Driver.can_store_bitmap:
        raise failed(f"Format driver '{name}' does not support bitmaps")
    for bitmap in bitmaps.persistent(source.node):
        if bitmap.inconsistent and not skip_broken:
            raise failed(
                f"Cannot copy inconsistent bitmap '{bitmap.name}'\n"
                "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it"
            )


def copy_bitmaps(source: Image, target: Image) -> None:
    """Give the target the source's persistent bitmaps; broken ones are left out.

    :raises ProgramError: if the target cannot keep one.
    """
    for bitmap in bitmaps.persistent(source.node):
        if bitmap.inconsistent:
            announce(f"warning: Skipping inconsistent bitmap '{bitmap.name}'")
            continue
        try:
            _copy(bitmap, target)
        except BlockyardError as error:
            raise failed(f"Failed to create bitmap {bitmap.name}: {error}") from error


def _copy(bitmap: DirtyBitmap, target: Image) -> None:
    made = bitmaps.create(
        target.node,
        bitmap.name,
        bitmap.granularity,
        recording=bitmap.recording,
        persistent=True,
    )
    made.merge(bitmap)
