# SPDX-License-Identifier: Apache-2.0
"""The native half, ready for use: core's table has been handed over.

``csrc/control.h`` documents what may be called.
"""

from blockyard.errors import from_errno
from blockyard.native import api_table
from blockyard_filters_quorum._native import ffi, lib

__all__ = ["ffi", "lib"]

if (_result := lib.by_filters_quorum_init(api_table())) < 0:
    raise ImportError(str(from_errno(_result, "blockyard-filters-quorum and core do not fit")))
