# SPDX-License-Identifier: Apache-2.0
"""The C, as programs: plain, and under the sanitizers."""

from typing import Any

import pytest


@pytest.mark.parametrize("backend", ["ring", "epoll"])
def test_a_storm_of_requests(native: Any, build: str, backend: str) -> None:
    for seed in (1, 2):
        native.check(build, "storm", backend, seed)


@pytest.mark.parametrize("backend", ["ring", "epoll"])
def test_a_storm_that_is_logged(native: Any, build: str, backend: str) -> None:
    for seed in (1, 2, 3):
        native.check(build, "logstorm", backend, seed)
