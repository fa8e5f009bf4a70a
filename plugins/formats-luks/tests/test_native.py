# SPDX-License-Identifier: Apache-2.0
"""The encrypted disk's C, as programs: plain, and under the sanitizers."""

from typing import Any

import pytest

LIBRARIES = ("-lgcrypt",)


@pytest.mark.parametrize("backend", ["ring", "epoll"])
def test_a_storm_of_requests(native: Any, build: str, backend: str) -> None:
    for seed in (1, 2):
        native.check(build, "storm", backend, seed)


def test_every_cipher_on_many_threads(native: Any, build: str) -> None:
    native.check(build, "ciphers")
