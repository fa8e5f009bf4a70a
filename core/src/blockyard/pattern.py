# SPDX-License-Identifier: Apache-2.0
"""Regular expressions that cost nothing until they are used.

Compiling one takes a millisecond, and a program that runs for a tenth of a second
imports many more than it needs.
"""

from __future__ import annotations

import re
from functools import cached_property

__all__ = ["Pattern"]


class Pattern:
    """What ``re.compile`` answers, compiled on first use."""

    def __init__(self, text: str, flags: int = 0) -> None:
        self._text = text
        self._flags = flags

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self._text, self._flags)

    def match(self, text: str, start: int = 0) -> re.Match[str] | None:
        """As ``re.Pattern.match``."""
        return self._compiled.match(text, start)

    def search(self, text: str, start: int = 0) -> re.Match[str] | None:
        """As ``re.Pattern.search``."""
        return self._compiled.search(text, start)

    def fullmatch(self, text: str) -> re.Match[str] | None:
        """As ``re.Pattern.fullmatch``."""
        return self._compiled.fullmatch(text)
