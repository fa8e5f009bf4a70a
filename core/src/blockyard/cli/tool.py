# SPDX-License-Identifier: Apache-2.0
"""What a subcommand of ``blockyard`` is.

A distribution adds one with an entry point in the group ``blockyard.tools``: the
name is the subcommand's, the value a :class:`Tool`, in a module that imports
little, because ``blockyard --help`` loads all of them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

import attrs

if TYPE_CHECKING:
    import argparse

__all__ = ["Implementation", "Tool", "ToolError"]


class ToolError(Exception):
    """Raised when a tool cannot go on; the text is all that its user sees."""

    def report(self) -> int:
        """Print the text to standard error; answers the exit status."""
        print(f"blockyard: {self}", file=sys.stderr)
        return 1


class Implementation(Protocol):
    """A tool's module: what it takes and what it does.

    A module with a function ``main(words) -> int`` in place of both parses its words
    itself, ``--help`` included; it may raise :class:`ToolError` as well.
    """

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the tool's arguments, description and examples."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it; the answer is the exit status.

        :raises ToolError: with a text for the user; the exit status is 1.
        """


@attrs.frozen
class Tool:
    """A subcommand: a line for the list of them, and the module to import for more."""

    summary: str
    module: str

    def load(self) -> Implementation:
        """Import the module; raises what the import raises."""
        return cast("Implementation", import_module(self.module))
