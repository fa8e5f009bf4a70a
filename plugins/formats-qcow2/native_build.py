# SPDX-License-Identifier: Apache-2.0
"""Describe the native half to cffi: the declarations are those of the headers named here."""

import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
CONTROLS = ["csrc/control.h", "csrc/tables_control.h", "csrc/check_control.h"]

ffibuilder = FFI()
ffibuilder.cdef("struct by_qcow2;")
for name in CONTROLS:
    ffibuilder.cdef(re.sub(r"^#.*$", "", (HERE / name).read_text(), flags=re.MULTILINE))
ffibuilder.set_source(
    "blockyard_formats_qcow2._native",
    "".join(f'#include "{Path(name).name}"\n' for name in CONTROLS),
    sources=sorted(str(p.relative_to(HERE)) for p in (HERE / "csrc").glob("*.c")),
    include_dirs=["csrc"],
    libraries=["z", "zstd", "deflate"],
    depends=sorted(str(p.relative_to(HERE)) for p in HERE.glob("csrc/*.h")),
    extra_compile_args=["-std=gnu11", "-O2", "-g", "-fvisibility=hidden", "-Wall", "-Wextra"],
)
