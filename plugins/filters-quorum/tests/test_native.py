# SPDX-License-Identifier: Apache-2.0
"""The C, as programs: plain, and under the sanitizers."""

from typing import Any

import pytest


@pytest.mark.parametrize("backend", ["ring", "epoll"])
def test_a_storm_of_requests(native: Any, build: str, backend: str) -> None:
    for seed in (1, 2, 3, 4):
        native.check(build, "storm", backend, seed)


def test_who_waits_for_whom(native: Any, build: str) -> None:
    for seed in (1, 2, 3):
        native.check(build, "ranges", seed)
