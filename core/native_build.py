# SPDX-License-Identifier: Apache-2.0
"""Describe ``blockyard._native`` to cffi.

The declarations are read from the C headers themselves: the structures that
Python handles from ``include/blockyard.h``, by the marks around them, and all of
``csrc/control.h``.
"""

import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
OPAQUE = ("by_api", "by_loop", "by_node", "by_node_ops", "by_root", "by_bridge")
SHARED = ("struct by_event", "struct by_limits", "enum by_op", "enum by_prealloc")


def shared_declarations() -> str:
    """The structures of blockyard.h that control.h uses by value."""
    header = (HERE / "include/blockyard.h").read_text()
    found = [re.search(rf"(?ms)^{name} \{{.*?^\}};", header) for name in SHARED]
    flags = re.findall(r"(?m)^#define (BY_(?:REQ|STATUS|CAP)_\w+|BY_ABI_VERSION) ", header)
    constants = [f"#define {name} ..." for name in flags]
    return "\n".join([m.group(0) for m in found if m] + constants)


def control_declarations() -> str:
    """control.h without its preprocessor lines."""
    header = (HERE / "csrc/control.h").read_text()
    return re.sub(r"(?m)^#.*$", "", header)


ffibuilder = FFI()
ffibuilder.cdef("\n".join(f"struct {name};" for name in OPAQUE))
ffibuilder.cdef(shared_declarations())
ffibuilder.cdef(control_declarations())
ffibuilder.set_source(
    "blockyard._native",
    '#include "control.h"',
    sources=sorted(str(p.relative_to(HERE)) for p in (HERE / "csrc").glob("*.c")),
    include_dirs=["include", "csrc"],
    depends=sorted(str(p.relative_to(HERE)) for p in HERE.glob("*/*.h")),
    extra_compile_args=["-std=gnu11", "-O2", "-g", "-fvisibility=hidden", "-Wall", "-Wextra"],
    libraries=["pthread"],
)
