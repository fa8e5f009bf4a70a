# SPDX-License-Identifier: Apache-2.0
"""Options of the filter copy-on-read, and its declaration."""

from __future__ import annotations

from blockyard.node import ChildSpec, DriverType
from blockyard.permission import Role
from blockyard.schema.block import BlockdevOptionsGenericFormat
from blockyard.schema.declare import struct

__all__ = ["COPY_ON_READ", "BlockdevOptionsCor"]


@struct
class BlockdevOptionsCor(BlockdevOptionsGenericFormat):
    """A filter that copies into the image what is read from its backing files.

    bottom: the lowest image of the chain whose data is copied (all).
    """

    bottom: str | None = None


COPY_ON_READ = DriverType(
    name="copy-on-read",
    kind="filter",
    options=BlockdevOptionsCor,
    implementation="blockyard_filters_copy_on_read.driver:CopyOnReadDriver",
    children=(ChildSpec(name="file", role=Role.FILTER),),
)
