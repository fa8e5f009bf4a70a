# SPDX-License-Identifier: Apache-2.0
"""Options of the filter, and the declarations of filter and group."""

from __future__ import annotations

from blockyard.node import ChildSpec, DriverType
from blockyard.objects import ObjectType
from blockyard.permission import Role
from blockyard.schema.block import BlockdevRef
from blockyard.schema.declare import struct
from blockyard.schema.throttle import ThrottleGroupProperties

__all__ = ["THROTTLE", "THROTTLE_GROUP", "BlockdevOptionsThrottle"]


@struct
class BlockdevOptionsThrottle:
    """A filter that limits the rate of what goes through it.

    throttle-group: the group whose limits hold; it exists.
    file: what is shown.
    """

    throttle_group: str
    file: BlockdevRef


THROTTLE = DriverType(
    name="throttle",
    kind="filter",
    options=BlockdevOptionsThrottle,
    implementation="blockyard_filters_throttle.driver:ThrottleDriver",
    children=(ChildSpec(name="file", role=Role.FILTER),),
    mutable_options=("throttle-group",),
)

THROTTLE_GROUP = ObjectType(
    name="throttle-group",
    options=ThrottleGroupProperties,
    implementation="blockyard_filters_throttle.group:ThrottleGroup",
)
