# SPDX-License-Identifier: Apache-2.0
"""What the suites of all distributions share.

Programs of their C, built in three ways; the same commands to us and to QEMU's daemon.
"""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CORE = Path(__file__).parent / "core"


def _module(path: Path) -> ModuleType:
    """A module in a folder of tests, which importlib mode has no path to."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def core_native(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The Builder of core's C: compiled once, for all suites that run together."""
    builds = _module(CORE / "tests/native/native_builds.py")
    return builds.Builder(tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def native(
    core_native: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The Builder of the distribution whose test this is; see core/tests/native.

    A test module names libraries that its programs need in ``LIBRARIES``.
    """
    distribution = request.path.parents[1]
    if distribution == CORE:
        return core_native
    libraries = getattr(request.module, "LIBRARIES", ())
    directory = tmp_path_factory.mktemp("native")
    return type(core_native)(directory, distribution, core_native, libraries)


@pytest.fixture(
    params=[
        "plain",
        pytest.param("address", marks=pytest.mark.asan),
        pytest.param("thread", marks=pytest.mark.tsan),
    ]
)
def build(request: pytest.FixtureRequest) -> str:
    """Each way to build the C."""
    return str(request.param)


@pytest.fixture(scope="session")
def same_answers() -> ModuleType:
    """core/tests/same_answers.py."""
    return _module(CORE / "tests/same_answers.py")


@pytest.fixture
def ours(same_answers: ModuleType) -> Iterator[Any]:
    """A yard in a thread, driven as by a monitor (:class:`same_answers.Ours`)."""
    from anyio.from_thread import start_blocking_portal

    from blockyard.yard import Yard

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Yard()) as yard:
        yield same_answers.Ours(portal, yard)


@pytest.fixture
def same(ours: Any, same_answers: ModuleType) -> Callable[[list[Any]], list[Any]]:
    """Run commands here and in a real daemon, and see that the answers are the same."""

    def compare(commands: list[Any]) -> list[Any]:
        expected = same_answers.theirs(commands)
        found = [{} if answer is None else answer for answer in ours.answers(commands)]
        for command, here, there in zip(commands, found, expected, strict=True):
            assert here == there, command
        return found

    return compare
