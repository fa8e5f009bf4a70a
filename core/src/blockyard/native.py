# SPDX-License-Identifier: Apache-2.0
"""The native half of core, as the Python half sees it.

``lib`` and ``ffi`` are cffi's; ``core/csrc/control.h`` documents what may be called, from
which thread, and what answers with an event.
"""

from blockyard._native import ffi, lib

__all__ = ["api_table", "ffi", "lib"]


def api_table() -> int:
    """Return the address of ``struct by_api``, which a native plugin is given."""
    return int(ffi.cast("uintptr_t", lib.by_api_table()))
