# SPDX-License-Identifier: Apache-2.0
"""``blockyard img``: the command line of qemu-img."""

from collections.abc import Sequence

from blockyard_tools.error import ProgramError

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Run the program with these arguments; answers the exit status.

    :raises ProgramError: when it cannot go on.
    """
    raise ProgramError("qemu-img", "not here yet")
