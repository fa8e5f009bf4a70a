# SPDX-License-Identifier: Apache-2.0
"""Describe the native half to cffi: the declarations are those of ``csrc/control.h``."""

import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent

ffibuilder = FFI()
ffibuilder.cdef("struct by_fuse_export; struct by_fuse_queue;")
ffibuilder.cdef(re.sub(r"^#.*$", "", (HERE / "csrc/control.h").read_text(), flags=re.MULTILINE))
ffibuilder.set_source(
    "blockyard_exports_fuse._native",
    '#include "control.h"',
    sources=sorted(str(p.relative_to(HERE)) for p in (HERE / "csrc").glob("*.c")),
    include_dirs=["csrc"],
    depends=sorted(str(p.relative_to(HERE)) for p in HERE.glob("csrc/*.h")),
    extra_compile_args=["-std=gnu11", "-O2", "-g", "-fvisibility=hidden", "-Wall", "-Wextra"],
)
