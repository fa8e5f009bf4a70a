# SPDX-License-Identifier: Apache-2.0
"""Run the bridge's C test program: plain and under the sanitizers, on both backends."""

import os
import subprocess
from pathlib import Path

import pytest

CORE = Path(__file__).parent.parent
COMPILER = os.environ.get("CC", "gcc")
FLAGS = ["-std=gnu11", "-g", "-Wall", "-Wextra", "-pthread"]
BUILDS = {
    "plain": ["-O2"],
    "address": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-O1", "-fsanitize=thread"],
}
MARKS = {"plain": [], "address": [pytest.mark.asan], "thread": [pytest.mark.tsan]}


@pytest.fixture(scope="module", params=[pytest.param(b, marks=MARKS[b]) for b in BUILDS])
def program(request, tmp_path_factory):
    """The program, with all of core's C but the glue."""
    out = tmp_path_factory.mktemp(request.param) / "bridge_test"
    sources = [*sorted((CORE / "csrc").glob("*.c")), CORE / "tests/native/bridge_test.c"]
    include = [f"-I{CORE / part}" for part in ("include", "csrc", "tests/native")]
    words = [COMPILER, *FLAGS, *BUILDS[request.param], *include, *sources, "-o", out]
    subprocess.run(list(map(str, words)), check=True, timeout=300)
    return out


@pytest.mark.parametrize("backend", ["ring", "epoll"])
def test_callers_a_server_and_drains_get_along(program, backend):
    words = [str(program), backend]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[:4000]
