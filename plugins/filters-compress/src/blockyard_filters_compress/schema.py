# SPDX-License-Identifier: Apache-2.0
"""Options of the filter compress, and its declaration."""

from __future__ import annotations

from blockyard.node import ChildSpec, DriverType
from blockyard.permission import Role
from blockyard.schema.block import BlockdevOptionsGenericFormat

__all__ = ["COMPRESS"]

COMPRESS = DriverType(
    name="compress",
    kind="filter",
    options=BlockdevOptionsGenericFormat,
    implementation="blockyard_filters_compress.driver:CompressDriver",
    children=(ChildSpec(name="file", role=Role.FILTER),),
)
