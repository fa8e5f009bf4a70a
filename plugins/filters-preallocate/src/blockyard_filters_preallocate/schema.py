# SPDX-License-Identifier: Apache-2.0
"""Options of the filter preallocate, and its declaration."""

from __future__ import annotations

from blockyard.node import ChildSpec, DriverType
from blockyard.permission import Role
from blockyard.schema.block import BlockdevOptionsGenericFormat
from blockyard.schema.declare import struct

__all__ = ["PREALLOCATE", "BlockdevOptionsPreallocate"]


@struct
class BlockdevOptionsPreallocate(BlockdevOptionsGenericFormat):
    """A filter between a format and its file, which lets the file grow in large steps.

    prealloc-align: what the file's end is aligned to when it grows, bytes (1048576).
    prealloc-size: how much is preallocated, bytes (134217728).
    """

    prealloc_align: int | None = None
    prealloc_size: int | None = None


PREALLOCATE = DriverType(
    name="preallocate",
    kind="filter",
    options=BlockdevOptionsPreallocate,
    implementation="blockyard_filters_preallocate.driver:PreallocateDriver",
    children=(ChildSpec(name="file", role=Role.FILTER),),
    mutable_options=("prealloc-align", "prealloc-size"),
)
