# SPDX-License-Identifier: Apache-2.0
"""What the kit found."""

import attrs

__all__ = ["Outcome", "Report"]


@attrs.frozen
class Outcome:
    """One check's end: ``"passed"``, ``"failed"`` or ``"skipped"``, and why."""

    subject: str
    name: str
    state: str
    reason: str = ""

    def line(self) -> str:
        """One line of the report."""
        reason = f"  ({self.reason})" if self.reason else ""
        return f"{self.state:<8}{self.subject:<13}{self.name.replace('_', ' ')}{reason}"


@attrs.frozen
class Report:
    """All outcomes, in the order in which the checks ran."""

    outcomes: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """What failed."""
        return tuple(o for o in self.outcomes if o.state == "failed")

    def count(self, state: str) -> int:
        """How many checks ended so."""
        return sum(o.state == state for o in self.outcomes)

    def text(self) -> str:
        """The report for people: a line for each check, and the sums."""
        sums = ", ".join(f"{self.count(s)} {s}" for s in ("passed", "failed", "skipped"))
        return "\n".join([*(o.line() for o in self.outcomes), sums])
