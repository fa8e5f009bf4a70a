# SPDX-License-Identifier: Apache-2.0
"""What the library logs, as the users of these programs are used to read it."""

import logging

from blockyard.repairs import tell_bare
from blockyard_tools.error import report

__all__ = ["speak_as"]

#: A node's last flush that fails.  QEMU's programs say nothing of it: where it matters,
#: their commands have flushed themselves, and the driver tells what of its own was lost.
_UNSAID = "blockyard.changes.closing"


class _Reports(logging.Handler):
    """Prints records behind the program's name; warnings as such."""

    def __init__(self, program: str) -> None:
        super().__init__(logging.WARNING)
        self._program = program

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record to standard error."""
        kind = "warning: " if record.levelno < logging.ERROR else ""
        report(self._program, kind + self.format(record))


def speak_as(program: str) -> None:
    """Let the library's warnings and errors come out as those of ``program``, ``qemu-img``...

    Once in a process: before, they would come out bare.
    """
    logging.basicConfig(format="%(message)s", handlers=[_Reports(program)], level=logging.WARNING)
    tell_bare()
    logging.getLogger(_UNSAID).setLevel(logging.CRITICAL)
