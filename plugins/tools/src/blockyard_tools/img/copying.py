# SPDX-License-Identifier: Apache-2.0
"""What the sub-commands that copy have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard_tools.img.command import failed
from blockyard_tools.progress import Meter, shown

if TYPE_CHECKING:
    from blockyard.copying import Copier

__all__ = ["SECTOR", "copied", "rate_of", "whole_sectors"]

SECTOR = 512


def rate_of(text: str | None) -> int:
    """Bytes per second of ``-r``; 0 without it.

    :raises ProgramError: if it is no number.
    """
    from blockyard_tools.sizes import parse_number

    if text is None:
        return 0
    rate = parse_number(text)
    if rate is None:
        raise failed(f"Invalid rate limit specified: '{text}'.")
    return rate


def whole_sectors(size: int) -> int:
    """Bytes, up to the sector's end."""
    return (size + SECTOR - 1) // SECTOR * SECTOR


async def copied(copier: Copier, meter: Meter) -> None:
    """Run a copy and show how far it is.

    :raises CopyFailed: if it fails.
    """
    async with shown(meter, copier):
        await copier.run()
