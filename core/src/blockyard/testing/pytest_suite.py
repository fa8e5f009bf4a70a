# SPDX-License-Identifier: Apache-2.0
"""The kit as a pytest class: one test for each check.

A suite is a subclass whose name begins with ``Test`` and whose ``subject`` is set.
"""

from typing import ClassVar

import anyio
import pytest

from blockyard.testing.check import Check, checks
from blockyard.testing.runner import run_one
from blockyard.testing.subject import Subject

__all__ = ["ConformanceSuite"]


class ConformanceSuite:
    """Subclass it, set ``subject``; ``backend`` may be ``"trio"``, ``without_ring`` true."""

    subject: ClassVar[Subject]
    backend: ClassVar[str] = "asyncio"
    without_ring: ClassVar[bool] = False

    @pytest.mark.parametrize("check", checks(), ids=lambda c: f"{c.subject}-{c.name}")
    def test_contract(self, check: Check) -> None:
        """Run one check on a fresh image."""
        outcome = anyio.run(run_one, check, self.subject, self.without_ring, backend=self.backend)
        if outcome.state == "skipped":
            pytest.skip(outcome.reason)
        assert outcome.state == "passed", outcome.reason
