# SPDX-License-Identifier: Apache-2.0
"""Run the loop's C test programs: plain and under the sanitizers, on both backends."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CORE = Path(__file__).parent.parent
SOURCES = [
    "loop",
    "loops",
    "ring",
    "ringop",
    "epoll",
    "tryio",
    "poll",
    "processors",
    "pool",
    "worker",
    "timer",
    "slab",
    "buffer",
    "events",
    "trace",
    "zero",
]
BUILDS = {
    "plain": ["-O2"],
    "address": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-O1", "-fsanitize=thread"],
}
PROGRAMS = [
    "posts",
    "files",
    "streams",
    "timers",
    "workers",
    "memory",
    "reports",
    "pollers",
    "stress",
    "stop",
]
FLAGS = ["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror"]
COMPILER = os.environ.get("CC", "gcc")


def run(*command: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run to the end and give back output and exit code."""
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)


def compile_one(build: str, source: Path, out: Path) -> None:
    """Compile one C file of core or of the tests."""
    include = [f"-I{CORE / part}" for part in ("include", "csrc", "tests/native")]
    done = run(COMPILER, *FLAGS, *BUILDS[build], *include, "-c", source, "-o", out)
    assert done.returncode == 0, done.stderr


class Builder:
    """Compiles the loop once for each build and links test programs to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.objects: dict[str, list[Path]] = {}

    def loop(self, build: str) -> list[Path]:
        """The loop's object files."""
        if build not in self.objects:
            folder = self.directory / build
            folder.mkdir()
            outs = [folder / f"{name}.o" for name in SOURCES]
            with ThreadPoolExecutor(2) as pool:
                for name, out in zip(SOURCES, outs, strict=True):
                    pool.submit(compile_one, build, CORE / f"csrc/{name}.c", out)
            assert all(out.exists() for out in outs)
            self.objects[build] = outs
        return self.objects[build]

    def program(self, build: str, name: str) -> Path:
        """A linked test program."""
        objects = self.loop(build)
        out = self.directory / build / name
        if not out.exists():
            compile_one(build, CORE / f"tests/native/{name}.c", out.with_suffix(".test.o"))
            link = [*BUILDS[build], out.with_suffix(".test.o"), *objects, "-lpthread"]
            done = run(COMPILER, *link, "-o", out)
            assert done.returncode == 0, done.stderr
        return out


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """One builder for all tests of the module."""
    return Builder(tmp_path_factory.mktemp("native"))


@pytest.mark.parametrize("backend", ["ring", "epoll"])
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    "build",
    [
        "plain",
        pytest.param("address", marks=pytest.mark.asan),
        pytest.param("thread", marks=pytest.mark.tsan),
    ],
)
def test_program(builder: Builder, build: str, program: str, backend: str) -> None:
    """The program's checks hold and no sanitizer complains."""
    done = run(builder.program(build, program), backend)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_refused_ring_means_epoll(builder: Builder, error: str) -> None:
    """Where io_uring_setup is refused the loop takes epoll by itself."""
    done = run(builder.program("plain", "refused"), "ring", error)
    assert done.returncode == 0, done.stderr


def test_stop_leaves_a_hanging_call_behind(builder: Builder) -> None:
    """A pool call that never returns does not keep by_stop from returning."""
    done = run(builder.program("plain", "stop"), "ring", "hang")
    assert done.returncode == 0, done.stderr


def test_a_round_of_reads_costs_one_system_call(builder: Builder) -> None:
    """32 reads that a round submits are one io_uring_enter, and so are their results."""
    done = run(builder.program("plain", "calls"))
    assert done.returncode == 0, done.stderr
