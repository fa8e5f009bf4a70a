# SPDX-License-Identifier: Apache-2.0
"""Drivers for the host's files, block devices and optical drives."""

from blockyard_drivers_file.schema import FILE, HOST_CDROM, HOST_DEVICE

__all__ = ["FILE", "HOST_CDROM", "HOST_DEVICE"]
