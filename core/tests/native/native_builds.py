# SPDX-License-Identifier: Apache-2.0
"""Builds core's C, or a plugin's with it, with test programs, and runs them."""

import os
import subprocess
from collections.abc import Sequence
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


def sources(csrc: Path) -> list[Path]:
    """All of the folder's C but the glue to Python, which is generated and includes Python.h."""
    return sorted(p for p in csrc.glob("*.c") if not p.name.startswith("_native"))


class Builder:
    """Compiles a distribution's C once for each build and links its test programs to it.

    Core's goes into the programs of a plugin as well; it is compiled once for all of them.
    """

    def __init__(
        self,
        directory: Path,
        distribution: Path = CORE,
        core: "Builder | None" = None,
        libraries: Sequence[str] = (),
    ) -> None:
        """``core`` is the Builder of core, for a plugin's; ``libraries`` are linked too."""
        self.directory = directory
        self.distribution = distribution
        self.below = core
        self.libraries = libraries
        self.made: dict[str, list[Path]] = {}

    def compile(self, build: str, source: Path, out: Path) -> None:
        """Compile one C file of the distribution or of its tests."""
        own = [f"-I{self.distribution / 'csrc'}"] if source.parent.name == "csrc" else []
        done = run(COMPILER, *FLAGS, *BUILDS[build], *own, *INCLUDE, "-c", source, "-o", out)
        assert done.returncode == 0, done.stderr

    def objects(self, build: str) -> list[Path]:
        """The object files, core's too."""
        if build not in self.made:
            folder = self.directory / build
            folder.mkdir()
            found = sources(self.distribution / "csrc")
            outs = {source: folder / f"{source.stem}.o" for source in found}
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda pair: self.compile(build, *pair), outs.items()))
            self.made[build] = list(outs.values())
        return self.made[build] + (self.below.objects(build) if self.below else [])

    def program(self, build: str, name: str) -> Path:
        """A linked test program."""
        objects = self.objects(build)
        out = self.directory / build / name
        if not out.exists():
            source = self.distribution / f"tests/native/{name}.c"
            self.compile(build, source, out.with_suffix(".test.o"))
            linked = [out.with_suffix(".test.o"), *objects, *self.libraries, "-lpthread"]
            done = run(COMPILER, *BUILDS[build], *linked, "-o", out)
            assert done.returncode == 0, done.stderr
        return out

    def check(self, build: str, name: str, *arguments: object) -> str:
        """Run a program: its checks hold and no sanitizer complains; what it printed."""
        done = run(self.program(build, name), *map(str, arguments), timeout=300)
        assert done.returncode == 0, done.stderr[:6000]
        return done.stdout
