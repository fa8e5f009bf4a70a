# SPDX-License-Identifier: Apache-2.0
"""Guests at work while the power is cut: native/power.c, over a range of seeds."""

import pytest

BUILDS = [
    pytest.param("plain", [*range(1, 9), 767], id="plain"),
    pytest.param("address", range(21, 24), id="address", marks=pytest.mark.asan),
    pytest.param("thread", range(31, 33), id="thread", marks=pytest.mark.tsan),
]


@pytest.mark.parametrize(("build", "seeds"), BUILDS)
def test_no_power_cut_loses_a_flush_or_a_refcount(native, build, seeds):
    """Every reference on the disk is counted, every sector as new as the last flush."""
    for seed in seeds:
        native.run(build, "power", str(seed))


@pytest.mark.parametrize(("build", "seeds"), BUILDS)
def test_a_failing_disk_costs_no_more_than_space(native, build, seeds):
    """The same where one operation in forty fails: clusters may leak, nothing else."""
    for seed in seeds:
        native.run(build, "power", str(seed), "fails")


@pytest.mark.parametrize("build", [pytest.param("address", marks=pytest.mark.asan)])
def test_refcounts_that_lie_give_no_write_a_cluster_in_use(native, build):
    """native/damaged.c: -EIO, QEMU's report, the corrupt bit, and no other byte changes."""
    native.run(build, "damaged")
