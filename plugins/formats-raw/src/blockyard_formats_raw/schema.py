# SPDX-License-Identifier: Apache-2.0
"""Options of the raw format, and its declaration."""

from __future__ import annotations

from typing import Any

from blockyard.node import ChildSpec, DriverType
from blockyard.schema.block import BlockdevOptionsGenericFormat, BlockdevRef, PreallocMode
from blockyard.schema.declare import Size, struct

__all__ = ["RAW", "BlockdevCreateOptionsRaw", "BlockdevOptionsRaw", "adapt_options"]


@struct
class BlockdevOptionsRaw(BlockdevOptionsGenericFormat):
    """An image without a format.

    offset: where it begins in the file, in bytes (0).
    size: its length in bytes; it cannot be resized then (to the end of the file).
    """

    offset: int | None = None
    size: int | None = None


@struct
class BlockdevCreateOptionsRaw:
    """A raw image in a file that exists: the file is given its length.

    file: the node to be used.
    size: bytes.
    preallocation: off, falloc or full, as far as the file's driver has them (off).
    """

    file: BlockdevRef
    size: Size
    preallocation: PreallocMode | None = None


def adapt_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a command line: sizes may have suffixes there (``offset=1M``)."""
    from blockyard.schema.keyvalvisitor import parse_size

    adapted = dict(options)
    for name in ("offset", "size"):
        if isinstance(text := options.get(name), str) and (found := parse_size(text)) is not None:
            adapted[name] = found
    return adapted


RAW = DriverType(
    name="raw",
    kind="format",
    options=BlockdevOptionsRaw,
    implementation="blockyard_formats_raw.driver:RawDriver",
    create_options=BlockdevCreateOptionsRaw,
    creation="blockyard_formats_raw.creation:RAW",
    children=(ChildSpec(name="file"),),
    mutable_options=("offset", "size"),
    adapt_options=adapt_options,
)
