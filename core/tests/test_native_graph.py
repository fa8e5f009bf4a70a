# SPDX-License-Identifier: Apache-2.0
"""Run the request path's C test programs: plain and under the sanitizers, on both backends.

Each draws its histories from a seed; a failure is repeated by running the
program with the same one.
"""

from typing import Any

import pytest

PROGRAMS = [
    "debug_test",
    "graph_test",
    "graph_rules",
    "graph_many",
    "bitmap_test",
    "copier_test",
    "comparer_test",
]


@pytest.mark.parametrize("seed", ["1", "20", "300"])
@pytest.mark.parametrize("backend", ["ring", "epoll"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_program(native: Any, build: str, program: str, backend: str, seed: str) -> None:
    """The program's checks hold and no sanitizer complains."""
    native.check(build, program, seed, backend)
