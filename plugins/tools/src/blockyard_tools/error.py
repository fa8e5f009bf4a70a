# SPDX-License-Identifier: Apache-2.0
"""How a program ends when it cannot go on, and what it says then."""

import sys

from blockyard.cli.tool import ToolError

__all__ = ["ProgramError", "report"]


class ProgramError(ToolError):
    """Raised when a program cannot go on: its last words and its exit status.

    The text is QEMU's, without the program's name; empty when all was said before.
    """

    def __init__(self, program: str, text: str = "", status: int = 1) -> None:
        super().__init__(text)
        self.program = program
        self.status = status
        #: Whether what was printed before comes before the text, also into a pipe.
        self.flushes = True

    def report(self) -> int:
        """Print the text to standard error; answers the exit status."""
        if str(self):
            report(self.program, str(self), flush=self.flushes)
        return self.status


def report(program: str, text: str, *, flush: bool = True) -> None:
    """Print a complaint to standard error, behind the name that its users' scripts know.

    ``program`` is ``qemu-img``, ``qemu-io`` or ``qemu-nbd``: these programs print what
    those print.  What was printed before comes before it, unless ``flush`` is False: then
    that may still be in a buffer, as it is wherever C prints.
    """
    if flush:
        sys.stdout.flush()
    print(f"{program}: {text}", file=sys.stderr, flush=True)
