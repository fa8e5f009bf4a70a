# SPDX-License-Identifier: Apache-2.0
"""Run the native half against kernels in threads: plain and under the sanitizers."""

import pytest


@pytest.mark.parametrize("backend", ["ring", "epoll"])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_queue_ends_and_leaves_nothing(native, build, backend, seed):
    native.check(build, "kernels", backend, 20, seed)
