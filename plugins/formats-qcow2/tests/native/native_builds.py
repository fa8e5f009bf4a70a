# SPDX-License-Identifier: Apache-2.0
"""Builds the plugin's C with the test programs beside this file, and runs them."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NATIVE = Path(__file__).parent
CSRC = NATIVE.parent.parent / "csrc"
BUILDS = {
    "plain": ["-O2"],
    "address": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-O1", "-fsanitize=thread"],
}
FLAGS = ["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
LIBRARIES = ["-lz", "-lzstd", "-ldeflate", "-lpthread"]
COMPILER = os.environ.get("CC", "gcc")


def run(*command, timeout=300):
    """Run to the end and give back output and exit code."""
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)


def compile_one(build, source, out):
    """Compile one C file of the plugin or of the tests."""
    include = [f"-I{CSRC}", f"-I{NATIVE}"]
    done = run(COMPILER, *FLAGS, *BUILDS[build], *include, "-c", source, "-o", out)
    assert done.returncode == 0, done.stderr


class Builder:
    """Compiles the plugin once for each build and links test programs to it."""

    def __init__(self, directory):
        self.directory = directory
        self.objects = {}

    def plugin(self, build):
        """The plugin's object files, without the glue to Python."""
        if build not in self.objects:
            folder = self.directory / build
            folder.mkdir()
            sources = sorted(p for p in CSRC.glob("*.c") if not p.name.startswith("_native"))
            outs = {source: folder / f"{source.stem}.o" for source in sources}
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda pair: compile_one(build, *pair), outs.items()))
            self.objects[build] = list(outs.values())
        return self.objects[build]

    def program(self, build, name):
        """A linked test program."""
        objects = self.plugin(build)
        out = self.directory / build / f"{Path(name).name}.program"
        if not out.exists():
            compile_one(build, NATIVE / f"{name}.c", out.with_suffix(".test.o"))
            link = [*BUILDS[build], out.with_suffix(".test.o"), *objects, *LIBRARIES]
            done = run(COMPILER, *link, "-o", out)
            assert done.returncode == 0, done.stderr
        return out

    def run(self, build, name, *arguments, ok=True):
        """Run a program; with ``ok`` it must end well."""
        done = run(self.program(build, name), *arguments)
        assert not ok or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done
