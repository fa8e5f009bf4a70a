# SPDX-License-Identifier: Apache-2.0
"""Run the loop's C test programs: plain and under the sanitizers, on both backends."""

from typing import Any

import pytest

PROGRAMS = [
    "posts",
    "wakes",
    "files",
    "streams",
    "timers",
    "workers",
    "memory",
    "reports",
    "pollers",
    "stress",
    "stop",
]


@pytest.mark.parametrize("backend", ["ring", "epoll"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_program(native: Any, build: str, program: str, backend: str) -> None:
    """The program's checks hold and no sanitizer complains."""
    native.check(build, program, backend)


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_refused_ring_means_epoll(native: Any, error: str) -> None:
    """Where io_uring_setup is refused the loop takes epoll by itself."""
    native.check("plain", "refused", "ring", error)


def test_stop_leaves_a_hanging_call_behind(native: Any) -> None:
    """A pool call that never returns does not keep by_stop from returning."""
    native.check("plain", "stop", "ring", "hang")


def test_a_round_of_reads_costs_one_system_call(native: Any) -> None:
    """32 reads that a round submits are one io_uring_enter, and so are their results."""
    native.check("plain", "calls")
