# SPDX-License-Identifier: Apache-2.0
"""Run the native half against servers in threads: plain and under the sanitizers."""

import pytest


@pytest.mark.parametrize("backend", ["ring", "epoll"])
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_servers_do_nothing_acknowledged_is_lost(native, build, backend, seed):
    native.check(build, "servers", backend, 3, seed)
