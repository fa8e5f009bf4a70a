# SPDX-License-Identifier: Apache-2.0
"""The request half under load from several loops: plain and under the sanitizers."""

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("how", ["auto", "threads", "ring", "direct"])
@pytest.mark.parametrize("backend", ["ring", "epoll"])
def test_a_storm_of_requests(
    native: Any, build: str, backend: str, how: str, tmp_path: Path
) -> None:
    native.check(build, "storm", backend, tmp_path / "disk.img", how)


@pytest.mark.parametrize(
    ("how", "limit", "asked"),
    [("ring", 3, "3"), ("ring", 0, "0"), ("auto", 3, "0"), ("threads", 3, "0")],
)
def test_operations_are_handed_to_the_kernel_in_batches(
    native: Any, how: str, limit: int, asked: str, tmp_path: Path
) -> None:
    told = native.check("plain", "storm", "batch", tmp_path / "disk.img", how, limit)
    assert told.split() == [asked]
