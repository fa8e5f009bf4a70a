# SPDX-License-Identifier: Apache-2.0
"""``blockyard nbd``: the command line of qemu-nbd."""

from collections.abc import Sequence

from blockyard_tools.error import ProgramError

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Run the program with these arguments; answers the exit status.

    :raises ProgramError: when it cannot go on.
    """
    raise ProgramError("qemu-nbd", "not here yet")
