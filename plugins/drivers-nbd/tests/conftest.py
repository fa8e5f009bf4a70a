# SPDX-License-Identifier: Apache-2.0
"""Servers for the tests, ended after each of them."""

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _load(name):
    """A module beside this one, for importlib mode has no path."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


servers = _load("servers")
mock_server = _load("mock_server")


@pytest.fixture(autouse=True)
def no_server_is_left():
    """Every server that the test started ends with it."""
    yield
    servers.end_all()
