# SPDX-License-Identifier: Apache-2.0
"""What blkdebug's rules mean, as plainly as Python says it."""

from __future__ import annotations

import attrs

__all__ = ["Error", "Model", "State"]


@attrs.define(eq=False)
class Error:
    """An inject-error rule."""

    event: int
    state: int
    error: int
    iotypes: int
    offset: int
    once: bool


@attrs.define(eq=False)
class State:
    """A set-state rule."""

    event: int
    state: int
    new_state: int


class Model:
    """The rules, the state, and the errors that are active."""

    def __init__(self) -> None:
        self.rules: list[Error | State] = []
        self.state = 1
        self.active: list[Error] = []

    def event(self, event: int) -> None:
        """The event happens."""
        hit = [r for r in self.rules if r.event == event and r.state in (0, self.state)]
        errors = [rule for rule in hit if isinstance(rule, Error)]
        states = [rule for rule in hit if isinstance(rule, State)]
        if errors:
            self.active = errors
        if states:
            self.state = states[0].new_state

    def request(self, iotype: int, offset: int, length: int) -> int:
        """What a request gets: 0, or an errno."""
        for rule in self.active:
            here = rule.offset == -1 or offset <= rule.offset < offset + length
            if rule.iotypes & iotype and here:
                if rule.once:
                    self.active.remove(rule)
                    self.rules.remove(rule)
                return rule.error
        return 0
