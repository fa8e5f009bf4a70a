# SPDX-License-Identifier: Apache-2.0
"""What the suites of all distributions share: programs of their C, built in three ways."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CORE = Path(__file__).parent / "core"


def _native_builds() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "native_builds", CORE / "tests/native/native_builds.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def core_native(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The Builder of core's C: compiled once, for all suites that run together."""
    return _native_builds().Builder(tmp_path_factory.mktemp("native"))


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
