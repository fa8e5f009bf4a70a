# SPDX-License-Identifier: Apache-2.0
"""Drivers for the host's files (``file``), block devices (``host_device``) and
optical drives (``host_cdrom``)."""

from blockyard_drivers_file.schema import FILE, HOST_CDROM, HOST_DEVICE

__all__ = ["FILE", "HOST_CDROM", "HOST_DEVICE"]
