# SPDX-License-Identifier: Apache-2.0
"""Exports: what block-export-add takes and query-block-exports tells."""

from __future__ import annotations

from typing import Annotated, Any

from blockyard.schema.declare import (
    QEnum,
    alternate,
    branches,
    enum,
    open_enum,
    struct,
    union,
)

__all__ = [
    "BlockDirtyBitmap",
    "BlockDirtyBitmapOrStr",
    "BlockExportInfo",
    "BlockExportIothreads",
    "BlockExportOptions",
    "BlockExportRemoveMode",
    "BlockExportType",
]

#: An export type's name; which there are depends on the packages installed.
BlockExportType = Annotated[str, open_enum("BlockExportType", "BlockExportOptions")]

#: One iothread's id, or several.
BlockExportIothreads = Annotated[
    Any, alternate("BlockExportIothreads", lambda: {"single": str, "multi": list[str]})
]

#: A bitmap of the node itself, or of another one.
BlockDirtyBitmapOrStr = Annotated[
    Any,
    alternate("BlockDirtyBitmapOrStr", lambda: {"local": str, "external": BlockDirtyBitmap}),
]


@enum
class BlockExportRemoveMode(QEnum):
    """Whether an export that has clients may be removed."""

    SAFE = "safe"
    HARD = "hard"


@struct
class BlockDirtyBitmap:
    """A dirty bitmap.

    node: the node that has it.
    name: its name.
    """

    node: str
    name: str


@union("type")
class BlockExportOptions:
    """An export.

    type: the export's type.
    id: its name, unique among exports.
    fixed-iothread: keep the export in its iothread whatever the node's users do (false).
    iothread: the iothread to serve it in, or several where the type can.
    node-name: the node to export.
    writable: let clients write (false).
    writethrough: flush after every write (false).
    allow-inactive: let the export be made for an inactive node (false).
    """

    type: BlockExportType
    id: str
    fixed_iothread: bool | None = None
    iothread: BlockExportIothreads | None = None
    node_name: str
    writable: bool | None = None
    writethrough: bool | None = None
    allow_inactive: bool | None = None
    u: Any = branches(source="BlockExportOptions")


@struct
class BlockExportInfo:
    """An export that exists.

    id: its name.
    type: its type.
    node-name: the node it exports.
    shutting-down: it waits for its clients to go.
    """

    id: str
    type: BlockExportType
    node_name: str
    shutting_down: bool
