# SPDX-License-Identifier: Apache-2.0
"""The native half, ready for use: core's table has been handed over.

The headers ``csrc/*control.h`` document what may be called.
"""

from blockyard.errors import from_errno
from blockyard.native import api_table
from blockyard_formats_qcow2._native import ffi, lib

__all__ = ["ffi", "lib"]

if (_result := lib.by_qcow2_init(api_table())) < 0:
    raise ImportError(str(from_errno(_result, "blockyard-formats-qcow2 and core do not fit")))
