# SPDX-License-Identifier: Apache-2.0
"""The fuzz target of the parser, for a moment, under the sanitizers."""

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.mark.asan
def test_the_parser_keeps_its_promises(tmp_path):
    program = tmp_path / "parse_fuzz"
    source = HERE / "fuzz/parse_fuzz.c"
    flags = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", *SANITIZERS]
    subprocess.run(["gcc", *flags, str(source), "-o", str(program)], check=True)

    for seed in (1, 2, 3):
        found = subprocess.run([program, "200000", str(seed)], capture_output=True, text=True)

        assert (found.returncode, found.stderr) == (0, "")
