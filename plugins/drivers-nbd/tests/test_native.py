# SPDX-License-Identifier: Apache-2.0
"""Run the native half against servers in threads: plain and under the sanitizers."""

import os
import subprocess
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent.parent
CORE = PLUGIN.parent.parent / "core"
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
    """The program, with all of core's C and the plugin's but the glue."""
    out = tmp_path_factory.mktemp(request.param) / "servers"
    sources = [*CORE.glob("csrc/*.c"), *PLUGIN.glob("csrc/*.c"), PLUGIN / "tests/native/servers.c"]
    include = [f"-I{CORE / part}" for part in ("include", "csrc", "tests/native")]
    words = [COMPILER, *FLAGS, *BUILDS[request.param], *include, *sources, "-o", out]
    subprocess.run(list(map(str, words)), check=True, timeout=300)
    return out


@pytest.mark.parametrize("backend", ["ring", "epoll"])
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_servers_do_nothing_acknowledged_is_lost(program, backend, seed):
    words = [str(program), backend, "3", str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[:6000]
