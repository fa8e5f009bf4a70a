# SPDX-License-Identifier: Apache-2.0
"""A disk in memory."""

from blockyard_drivers_ram.driver import BlockdevOptionsRam, RamDriver

__all__ = ["BlockdevOptionsRam", "RamDriver"]
