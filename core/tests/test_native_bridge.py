# SPDX-License-Identifier: Apache-2.0
"""Run the bridge's C test program: plain and under the sanitizers, on both backends."""

from typing import Any

import pytest


@pytest.mark.parametrize("backend", ["ring", "epoll"])
def test_callers_a_server_and_drains_get_along(native: Any, build: str, backend: str) -> None:
    native.check(build, "bridge_test", backend)
