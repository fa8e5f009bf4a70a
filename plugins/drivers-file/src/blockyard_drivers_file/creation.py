# SPDX-License-Identifier: Apache-2.0
"""The options by which people make files and devices ready for images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from blockyard.creation import PREALLOCATION, SIZE, CreateOption, Creation, Kind
from blockyard.errors import InvalidOption
from blockyard.schema.block import PreallocMode

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FILE"]


def _members(values: Mapping[str, str]) -> dict[str, str]:
    """The members of BlockdevCreateOptionsFile.

    :raises InvalidOption: for a mode that there is not.
    """
    mode = values.get("preallocation", "off")
    if mode not in tuple(PreallocMode):
        raise InvalidOption(f"invalid parameter value: {mode}")
    return {name.replace("_", "-"): value for name, value in values.items()}


FILE = Creation(
    options=(
        SIZE,
        CreateOption("nocow", Kind.BOOL, "Turn off copy-on-write (valid only on btrfs)"),
        attrs.evolve(PREALLOCATION, help="Preallocation mode (allowed values: off, falloc, full)"),
        CreateOption(
            "extent_size_hint", Kind.SIZE, "Extent size hint for the image file, 0 to disable"
        ),
    ),
    members=_members,
)
