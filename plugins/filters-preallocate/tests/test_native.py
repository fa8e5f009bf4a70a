# SPDX-License-Identifier: Apache-2.0
"""The C under load from several loops: plain, and under the sanitizers."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent.parent
CORE = PLUGIN.parent.parent / "core"
BUILDS = {
    "plain": ["-O2"],
    "address": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-O1", "-fsanitize=thread"],
}
COMPILER = os.environ.get("CC", "gcc")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def compile_one(flags: list[str], source: Path, out: Path) -> None:
    include = [] if source.is_relative_to(PLUGIN / "csrc") else [f"-I{CORE / 'include'}"]
    done = run(
        COMPILER, "-std=gnu11", "-g", "-w", *flags, *include, "-c", str(source), "-o", str(out)
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The programs that have been built, by build."""
    return {"": tmp_path_factory.mktemp("native")}


def program(programs: dict[str, Path], build: str) -> Path:
    if build not in programs:
        folder = programs[""] / build
        folder.mkdir()
        sources = [*(CORE / "csrc").glob("*.c"), *(PLUGIN / "csrc").glob("*.c")]
        sources = [source for source in sources if source.name != "_native.c"]
        sources.append(PLUGIN / "tests/native/storm.c")
        objects = [folder / f"{number}.o" for number in range(len(sources))]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(compile_one, [BUILDS[build]] * len(sources), sources, objects))
        done = run(COMPILER, *BUILDS[build], *objects, "-lpthread", "-o", folder / "storm")
        assert done.returncode == 0, done.stderr
        programs[build] = folder / "storm"
    return programs[build]


@pytest.mark.parametrize("backend", ["ring", "epoll"])
@pytest.mark.parametrize(
    "build",
    [
        "plain",
        pytest.param("address", marks=pytest.mark.asan),
        pytest.param("thread", marks=pytest.mark.tsan),
    ],
)
def test_a_storm_of_requests(programs: dict[str, Path], build: str, backend: str) -> None:
    storm = program(programs, build)
    for seed in ("1", "2", "3"):
        done = run(storm, backend, seed)
        assert done.returncode == 0, done.stderr
