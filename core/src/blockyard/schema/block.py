# SPDX-License-Identifier: Apache-2.0
"""Options of block nodes: what blockdev-add, -reopen and -create take."""

from __future__ import annotations

from typing import Annotated, Any

from blockyard.schema.declare import (
    Null,
    QEnum,
    alternate,
    branches,
    enum,
    open_enum,
    struct,
    union,
)

__all__ = [
    "BlockdevAmendOptions",
    "BlockdevCacheOptions",
    "BlockdevCreateOptions",
    "BlockdevDetectZeroesOptions",
    "BlockdevDiscardOptions",
    "BlockdevDriver",
    "BlockdevOptions",
    "BlockdevOptionsGenericFormat",
    "BlockdevRef",
    "BlockdevRefOrNull",
    "OnOffAuto",
    "PreallocMode",
    "StrOrNull",
]

#: A driver's name; which there are depends on the packages installed.
BlockdevDriver = Annotated[str, open_enum("BlockdevDriver", "BlockdevOptions")]

#: A node-name, or the options of a node to be opened for this reference.
BlockdevRef = Annotated[
    Any,
    alternate("BlockdevRef", lambda: {"definition": BlockdevOptions, "reference": str}),
]

#: Like :data:`BlockdevRef`; null says that there is no such child.
BlockdevRefOrNull = Annotated[
    Any,
    alternate(
        "BlockdevRefOrNull",
        lambda: {"definition": BlockdevOptions, "reference": str, "null": Null},
    ),
]

#: A string, or null to remove what was set.
StrOrNull = Annotated[Any, alternate("StrOrNull", lambda: {"s": str, "n": Null})]


@enum
class OnOffAuto(QEnum):
    """Yes, no, or whatever is best."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


@enum
class BlockdevDiscardOptions(QEnum):
    """What becomes of discard requests."""

    IGNORE = "ignore"
    UNMAP = "unmap"


@enum
class BlockdevDetectZeroesOptions(QEnum):
    """Whether writes of nothing but zeroes become write-zeroes requests."""

    OFF = "off"
    ON = "on"
    UNMAP = "unmap"


@enum
class PreallocMode(QEnum):
    """How much of a new image is allocated when it is created."""

    OFF = "off"
    METADATA = "metadata"
    FALLOC = "falloc"
    FULL = "full"


@struct
class BlockdevCacheOptions:
    """How the host's page cache is used.

    direct: bypass it (O_DIRECT).
    no-flush: ignore flush requests.
    """

    direct: bool | None = None
    no_flush: bool | None = None


@union("driver")
class BlockdevOptions:
    """A block node.

    driver: the driver's name.
    node-name: the node's name; made up when it is left out.
    discard: what becomes of discard requests (ignore).
    cache: how the host's page cache is used.
    active: whether the node is activated at once (true, or as its child is).
    read-only: whether the node refuses writes (false).
    auto-read-only: whether the node may fall back to read-only (false).
    force-share: whether all permissions are shared; needs read-only (false).
    detect-zeroes: whether writes of zeroes become write-zeroes requests (off).
    """

    driver: BlockdevDriver
    node_name: str | None = None
    discard: BlockdevDiscardOptions | None = None
    cache: BlockdevCacheOptions | None = None
    active: bool | None = None
    read_only: bool | None = None
    auto_read_only: bool | None = None
    force_share: bool | None = None
    detect_zeroes: BlockdevDetectZeroesOptions | None = None
    u: Any = branches(source="BlockdevOptions")


@struct
class BlockdevOptionsGenericFormat:
    """Options of a format or filter that has one child and nothing else.

    file: the child.
    """

    file: BlockdevRef


@union("driver")
class BlockdevCreateOptions:
    """An image to be created.

    driver: the driver that creates it.
    """

    driver: BlockdevDriver
    u: Any = branches(source="BlockdevCreateOptions")


@union("driver")
class BlockdevAmendOptions:
    """Options of an image that are to be changed.

    driver: the driver of the node.
    """

    driver: BlockdevDriver
    u: Any = branches(source="BlockdevAmendOptions")
