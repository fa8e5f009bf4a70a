# SPDX-License-Identifier: Apache-2.0
"""Builds core's C with the test programs beside this file, and runs them."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NATIVE = Path(__file__).parent
CORE = NATIVE.parent.parent
BUILDS = {
    "plain": ["-O2"],
    "address": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-O1", "-fsanitize=thread"],
}
FLAGS = ["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
INCLUDE = [f"-I{CORE / part}" for part in ("include", "csrc", "tests/native")]
COMPILER = os.environ.get("CC", "gcc")


def run(*command: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run to the end and give back output and exit code."""
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)


def compile_one(build: str, source: Path, out: Path) -> None:
    """Compile one C file of core or of the tests."""
    done = run(COMPILER, *FLAGS, *BUILDS[build], *INCLUDE, "-c", source, "-o", out)
    assert done.returncode == 0, done.stderr


def sources() -> list[Path]:
    """All of core's C but the glue to Python, which is generated and includes Python.h."""
    return sorted(p for p in (CORE / "csrc").glob("*.c") if not p.name.startswith("_native"))


class Builder:
    """Compiles core once for each build and links test programs to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.objects: dict[str, list[Path]] = {}

    def core(self, build: str) -> list[Path]:
        """Core's object files."""
        if build not in self.objects:
            folder = self.directory / build
            folder.mkdir()
            outs = {source: folder / f"{source.stem}.o" for source in sources()}
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda pair: compile_one(build, *pair), outs.items()))
            self.objects[build] = list(outs.values())
        return self.objects[build]

    def program(self, build: str, name: str) -> Path:
        """A linked test program."""
        objects = self.core(build)
        out = self.directory / build / name
        if not out.exists():
            compile_one(build, NATIVE / f"{name}.c", out.with_suffix(".test.o"))
            link = [*BUILDS[build], out.with_suffix(".test.o"), *objects, "-lpthread"]
            done = run(COMPILER, *link, "-o", out)
            assert done.returncode == 0, done.stderr
        return out

    def check(self, build: str, name: str, *arguments: str) -> None:
        """Run a program: its checks hold and no sanitizer complains."""
        done = run(self.program(build, name), *arguments)
        assert done.returncode == 0, done.stderr[:4000]
