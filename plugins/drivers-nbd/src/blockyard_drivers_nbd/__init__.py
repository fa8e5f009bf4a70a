# SPDX-License-Identifier: Apache-2.0
"""The driver ``nbd``: disks that NBD servers export."""

from blockyard_drivers_nbd.schema import NBD

__all__ = ["NBD"]
