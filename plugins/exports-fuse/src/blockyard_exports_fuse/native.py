# SPDX-License-Identifier: Apache-2.0
"""The native half, ready for use; ``csrc/control.h`` documents what may be called."""

from blockyard.errors import from_errno
from blockyard.native import api_table
from blockyard_exports_fuse._native import ffi, lib

__all__ = ["API", "ffi", "lib"]

#: The address of core's function table.
API = api_table()

if (_result := lib.by_fuse_check_api(API)) < 0:
    raise ImportError(str(from_errno(_result, "blockyard-exports-fuse and core do not fit")))
