# SPDX-License-Identifier: Apache-2.0
"""The C, as programs: plain, and under the sanitizers."""

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
EACH_BUILD = pytest.mark.parametrize(
    "build",
    [
        "plain",
        pytest.param("address", marks=pytest.mark.asan),
        pytest.param("thread", marks=pytest.mark.tsan),
    ],
)


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
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The sources that have been compiled, by build; the folder is beside them."""
    return {"": [tmp_path_factory.mktemp("native")]}


def program(objects: dict[str, list[Path]], build: str, name: str) -> Path:
    folder = objects[""][0] / build
    if build not in objects:
        folder.mkdir()
        sources = [*(CORE / "csrc").glob("*.c"), *(PLUGIN / "csrc").glob("*.c")]
        made = [folder / f"{number}.o" for number in range(len(sources))]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(compile_one, [BUILDS[build]] * len(sources), sources, made))
        objects[build] = made
    compile_one(BUILDS[build], PLUGIN / f"tests/native/{name}.c", folder / f"{name}.o")
    libraries = ["-lpthread"]
    linked = [*objects[build], folder / f"{name}.o"]
    done = run(COMPILER, *BUILDS[build], *linked, *libraries, "-o", folder / name)
    assert done.returncode == 0, done.stderr
    return folder / name


@pytest.mark.parametrize("backend", ["ring", "epoll"])
@EACH_BUILD
def test_a_storm_of_requests(objects: dict[str, list[Path]], build: str, backend: str) -> None:
    storm = program(objects, build, "storm")
    for seed in ("1", "2"):
        done = run(storm, backend, seed)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("backend", ["ring", "epoll"])
@EACH_BUILD
def test_a_storm_that_is_logged(objects: dict[str, list[Path]], build: str, backend: str) -> None:
    storm = program(objects, build, "logstorm")
    for seed in ("1", "2", "3"):
        done = run(storm, backend, seed)
        assert done.returncode == 0, done.stderr
