# SPDX-License-Identifier: Apache-2.0
"""Options of the null drivers, and their declarations."""

from __future__ import annotations

from typing import Any

from blockyard.errors import InvalidOption
from blockyard.node import DriverType
from blockyard.schema.declare import Uint64, struct

__all__ = ["NULL_AIO", "NULL_CO", "BlockdevOptionsNull"]


@struct
class BlockdevOptionsNull:
    """A disk that forgets what is written.

    size: bytes (1 GiB).
    latency-ns: how long each request takes, in nanoseconds (0).
    read-zeroes: whether reading zeroes is promised, so that the disk shows as one
        hole; zeroes are read in any case (false).
    """

    size: int | None = None
    latency_ns: Uint64 | None = None
    read_zeroes: bool | None = None


def _parse(name: str) -> dict[str, Any]:
    """There is nothing to be said in a name.

    :raises InvalidOption: if it says something.
    """
    driver = name.partition(":")[0]
    if name != f"{driver}://":
        raise InvalidOption(f"The only allowed filename for this driver is '{driver}://'")
    return {}


NULL_CO = DriverType(
    name="null-co",
    kind="protocol",
    prefixes=("null-co",),
    parse_filename=_parse,
    options=BlockdevOptionsNull,
    implementation="blockyard_drivers_null.driver:NullDriver",
)

NULL_AIO = DriverType(
    name="null-aio",
    kind="protocol",
    prefixes=("null-aio",),
    parse_filename=_parse,
    options=BlockdevOptionsNull,
    implementation="blockyard_drivers_null.driver:NullDriver",
)
