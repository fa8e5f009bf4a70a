# SPDX-License-Identifier: Apache-2.0
"""Filters for testing: errors, breakpoints, comparing, and logs of writes."""

from blockyard_filters_debug.schema import BLKDEBUG, BLKLOGWRITES, BLKVERIFY

__all__ = ["BLKDEBUG", "BLKLOGWRITES", "BLKVERIFY"]
