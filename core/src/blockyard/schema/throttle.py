# SPDX-License-Identifier: Apache-2.0
"""Throttle groups' limits."""

from __future__ import annotations

from blockyard.schema.declare import member, struct

__all__ = ["ThrottleGroupProperties", "ThrottleLimits"]


def _unstable(name: str) -> int | None:
    """One of the limits that older clients set one by one."""
    spec: int | None = member(default=None, name=name, features=("unstable",))
    return spec


@struct
class ThrottleLimits:
    """Limits on requests and bytes a second.

    ``*-max`` is the rate in a burst, ``*-max-length`` the burst's seconds, and iops-size
    the bytes that count as one request.
    """

    iops_total: int | None = None
    iops_total_max: int | None = None
    iops_total_max_length: int | None = None
    iops_read: int | None = None
    iops_read_max: int | None = None
    iops_read_max_length: int | None = None
    iops_write: int | None = None
    iops_write_max: int | None = None
    iops_write_max_length: int | None = None
    bps_total: int | None = None
    bps_total_max: int | None = None
    bps_total_max_length: int | None = None
    bps_read: int | None = None
    bps_read_max: int | None = None
    bps_read_max_length: int | None = None
    bps_write: int | None = None
    bps_write_max: int | None = None
    bps_write_max_length: int | None = None
    iops_size: int | None = None


@struct
class ThrottleGroupProperties:
    """A throttle group.

    limits: the limits, all at once.
    """

    limits: ThrottleLimits | None = None
    x_iops_total: int | None = _unstable("x-iops-total")
    x_iops_total_max: int | None = _unstable("x-iops-total-max")
    x_iops_total_max_length: int | None = _unstable("x-iops-total-max-length")
    x_iops_read: int | None = _unstable("x-iops-read")
    x_iops_read_max: int | None = _unstable("x-iops-read-max")
    x_iops_read_max_length: int | None = _unstable("x-iops-read-max-length")
    x_iops_write: int | None = _unstable("x-iops-write")
    x_iops_write_max: int | None = _unstable("x-iops-write-max")
    x_iops_write_max_length: int | None = _unstable("x-iops-write-max-length")
    x_bps_total: int | None = _unstable("x-bps-total")
    x_bps_total_max: int | None = _unstable("x-bps-total-max")
    x_bps_total_max_length: int | None = _unstable("x-bps-total-max-length")
    x_bps_read: int | None = _unstable("x-bps-read")
    x_bps_read_max: int | None = _unstable("x-bps-read-max")
    x_bps_read_max_length: int | None = _unstable("x-bps-read-max-length")
    x_bps_write: int | None = _unstable("x-bps-write")
    x_bps_write_max: int | None = _unstable("x-bps-write-max")
    x_bps_write_max_length: int | None = _unstable("x-bps-write-max-length")
    x_iops_size: int | None = _unstable("x-iops-size")
