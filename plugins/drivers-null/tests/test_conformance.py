# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on the null drivers."""

from typing import Any

from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite


def subject(driver: str, **options: Any) -> Subject:
    return Subject(
        make=lambda folder, size: {"driver": driver, "size": size, **options},
        stores=False,
        persists=False,
        refused=({"driver": driver, "size": -1}, {"driver": driver, "latency-ns": 1 << 63}),
    )


class TestNullCo(ConformanceSuite):
    subject = subject("null-co")


class TestReadZeroes(ConformanceSuite):
    subject = subject("null-co", **{"read-zeroes": True})


class TestNullAioWithLatency(ConformanceSuite):
    subject = subject("null-aio", **{"latency-ns": 100_000})
