# SPDX-License-Identifier: Apache-2.0
"""The conformance kit: hold a driver of your own to the whole contract.

    from blockyard.testing import Subject, run_conformance

    report = run_conformance(Subject(make=lambda folder, size: {"driver": "mine", "size": size}))
    print(report.text())

It needs no pytest; ``blockyard.testing.pytest_suite`` is a thin class on top.
"""

from blockyard.testing.check import Check, checks
from blockyard.testing.report import Outcome, Report
from blockyard.testing.runner import check_conformance, run_conformance, run_one
from blockyard.testing.subject import Subject

__all__ = [
    "Check",
    "Outcome",
    "Report",
    "Subject",
    "check_conformance",
    "checks",
    "run_conformance",
    "run_one",
]
