# SPDX-License-Identifier: Apache-2.0
"""The object ``throttle-group``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from blockyard.errors import InvalidOption
from blockyard.objects import Object, Property
from blockyard.schema.structure import visit
from blockyard.schema.throttle import ThrottleGroupProperties, ThrottleLimits
from blockyard_filters_throttle.limits import Limits, property_value
from blockyard_filters_throttle.native import ffi, lib
from blockyard_filters_throttle.schema import THROTTLE_GROUP

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["ThrottleGroup", "native_limits"]


def native_limits(limits: Limits) -> Any:
    """``struct by_throttle_limits *``."""
    rates = [(rate.average, rate.burst, rate.length) for rate in limits.rates]
    return ffi.new(
        "struct by_throttle_limits *", {"rates": rates, "request_size": limits.iops_size}
    )


class ThrottleGroup(Object):
    """Limits that the nodes in the group share."""

    type = THROTTLE_GROUP

    def __init__(self, yard: Yard, object_id: str, options: Any) -> None:
        super().__init__(yard, object_id, options)
        #: How many nodes are in it.
        self.members = 0
        self.limits = Limits()
        #: ``struct by_throttle_group *``, while it lives.
        self.native: Any = ffi.NULL

    async def start(self) -> None:
        """Make the limits hold that were given.

        :raises InvalidOption: if they cannot hold together, with QEMU's text.
        """
        limits = self.limits
        if self.options.limits is not None:
            limits = limits.with_limits(self.options.limits)
        for name, attribute in _single_limits():
            value = getattr(self.options, attribute)
            if value is not None:
                limits = limits.changed(name, property_value(name, value))
        limits.check()
        self.native = lib.by_throttle_group_create()
        if self.native == ffi.NULL:
            raise MemoryError
        self._take(limits)

    async def stop(self) -> None:
        """Free the native half; no node is in it."""
        lib.by_throttle_group_free(self.native)
        self.native = ffi.NULL

    def in_use(self) -> bool:
        """Whether a node is in it."""
        return self.members > 0

    def in_use_error(self) -> str:
        """QEMU's words for this object."""
        return f"Cannot delete throttle group '{self.id}' with active references"

    def properties(self) -> dict[str, Property]:
        """``limits``, and each limit by itself, which stays as it was made."""
        found = {
            "limits": Property(
                type="ThrottleLimits",
                get=lambda: self.limits.as_given(),
                set=lambda value: self._set_limits(value),
            )
        }
        for name, _ in _single_limits():
            found[f"x-{name}"] = Property(
                type="int", get=partial(self._get, name), set=_refuse_change
            )
        return found

    def _get(self, name: str) -> int:
        value = self.limits.get(name)
        return value - (1 << 64) if value >> 63 else value

    def _set_limits(self, value: Any) -> None:
        self._take(self.limits.with_limits(visit(ThrottleLimits, value, name="limits")))

    def _take(self, limits: Limits) -> None:
        self.limits = limits
        lib.by_throttle_group_set(self.native, native_limits(limits))


def _single_limits() -> list[tuple[str, str]]:
    """The limits that have a property of their own, and their attribute in the options."""
    struct: Any = ThrottleGroupProperties
    names = [field.name for field in attrs.fields(struct)]
    return [(n.removeprefix("x_").replace("_", "-"), n) for n in names if n.startswith("x_")]


def _refuse_change(value: Any) -> None:
    raise InvalidOption("Property cannot be set after initialization")
