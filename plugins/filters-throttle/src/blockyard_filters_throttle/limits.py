# SPDX-License-Identifier: Apache-2.0
"""Limits: what may be set together, and how options change them."""

from __future__ import annotations

from typing import Any

import attrs

from blockyard.errors import InvalidOption
from blockyard.schema.throttle import ThrottleLimits

__all__ = ["KINDS", "Limits", "Rate", "property_value"]

#: The kinds of limit, in the order of the native half's buckets.
KINDS = ("bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write")

#: A second's bytes or requests, and what a burst may sum up to.
_MOST = 1_000_000_000_000_000
_LENGTH_MOST = (1 << 32) - 1
_UNSIGNED = (1 << 64) - 1


@attrs.frozen
class Rate:
    """One limit: bytes or requests."""

    #: In a second; 0 for no limit.
    average: int = 0
    #: In a second of a burst; 0 for no bursts.
    burst: int = 0
    #: How many seconds of a burst.
    length: int = 1

    def check(self) -> None:
        """Refuse what means nothing.

        :raises InvalidOption: with QEMU's text.
        """
        if not (0 <= self.average <= _MOST and 0 <= self.burst <= _MOST):
            raise InvalidOption(f"bps/iops/max values must be within [0, {_MOST}]")
        if not self.length:
            raise InvalidOption("the burst length cannot be 0")
        if self.length > 1 and not self.burst:
            raise InvalidOption("burst length set without burst rate")
        if self.length > 1 and self.burst * self.length > _MOST:
            raise InvalidOption("burst length too high for this burst rate")
        if self.burst and not self.average:
            raise InvalidOption("bps_max/iops_max require corresponding bps/iops values")
        if self.burst and self.burst < self.average:
            raise InvalidOption("bps_max/iops_max cannot be lower than bps/iops")


@attrs.frozen
class Limits:
    """All limits of a group."""

    rates: tuple[Rate, ...] = (Rate(),) * len(KINDS)
    #: Bytes from which on a request counts as more than one; 0: never.
    iops_size: int = 0

    def check(self) -> None:
        """Refuse limits that cannot hold together.

        :raises InvalidOption: with QEMU's text.
        """
        for total, read, write in (self.rates[:3], self.rates[3:]):
            for name in ("average", "burst"):
                parts = getattr(read, name) or getattr(write, name)
                if getattr(total, name) and parts:
                    raise InvalidOption(
                        "bps/iops/max total values and read/write values "
                        "cannot be used at the same time"
                    )
        if self.iops_size and not any(rate.average for rate in self.rates[3:]):
            raise InvalidOption("iops size requires an iops value to be set")
        for rate in self.rates:
            rate.check()

    def get(self, name: str) -> int:
        """What the member ``name`` of ThrottleLimits is, ``"iops-total-max"``."""
        if name == "iops-size":
            return self.iops_size
        kind, field = _field(name)
        return int(getattr(self.rates[kind], field))

    def changed(self, name: str, value: int) -> Limits:
        """The same with another value of the member ``name``; nothing is checked."""
        if name == "iops-size":
            return attrs.evolve(self, iops_size=value & _UNSIGNED)
        kind, field = _field(name)
        rates = list(self.rates)
        rates[kind] = attrs.evolve(rates[kind], **{field: value})
        return attrs.evolve(self, rates=tuple(rates))

    def with_limits(self, given: Any) -> Limits:
        """The same with what is set in a ThrottleLimits.

        :raises InvalidOption: if they cannot hold together.
        """
        limits = self
        for name in _members():
            value = getattr(given, name.replace("-", "_"))
            if value is not None:
                limits = limits.changed(name, _in_range(name, value))
        limits.check()
        return limits

    def as_given(self) -> ThrottleLimits:
        """All of them as a ThrottleLimits."""
        return ThrottleLimits(**{name.replace("-", "_"): self.get(name) for name in _members()})


def _members() -> list[str]:
    """The members of ThrottleLimits, in the order in which they are looked at."""
    return [*(k + suffix for k in KINDS for suffix in ("", "-max", "-max-length")), "iops-size"]


def _field(name: str) -> tuple[int, str]:
    for suffix, field in (("-max-length", "length"), ("-max", "burst"), ("", "average")):
        if name.endswith(suffix) and name.removesuffix(suffix) in KINDS:
            return KINDS.index(name.removesuffix(suffix)), field
    raise KeyError(name)


def _in_range(name: str, value: int) -> int:
    if not name.endswith("-length"):
        return value
    if value > _LENGTH_MOST:
        raise InvalidOption(f"{name} value must be in the range [0, {_LENGTH_MOST}]")
    # What is below the range is not refused but read as another number.
    return value & _UNSIGNED


def property_value(name: str, value: int) -> int:
    """The value of a property ``x-NAME`` as a limit.

    :raises InvalidOption: with QEMU's text.
    """
    if value < 0:
        raise InvalidOption("Property values cannot be negative")
    if name.endswith("-length") and value > _LENGTH_MOST:
        # The blank is missing there as well.
        raise InvalidOption(f"x-{name} value must be in therange [0, {_LENGTH_MOST}]")
    return value
