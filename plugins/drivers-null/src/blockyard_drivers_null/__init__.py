# SPDX-License-Identifier: Apache-2.0
"""Drivers without a disk: ``null-co`` and ``null-aio``."""

from blockyard_drivers_null.schema import NULL_AIO, NULL_CO

__all__ = ["NULL_AIO", "NULL_CO"]
