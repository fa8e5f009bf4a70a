# SPDX-License-Identifier: Apache-2.0
"""Filters for testing: errors, breakpoints, and comparing."""

from blockyard_filters_debug.schema import BLKDEBUG, BLKVERIFY

__all__ = ["BLKDEBUG", "BLKVERIFY"]
