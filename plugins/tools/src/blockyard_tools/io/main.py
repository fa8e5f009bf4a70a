# SPDX-License-Identifier: Apache-2.0
"""``blockyard io``: the command line of qemu-io."""

from collections.abc import Sequence

from blockyard_tools.error import ProgramError

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Run the program with these arguments; answers the exit status.

    :raises ProgramError: when it cannot go on.
    """
    raise ProgramError("qemu-io", "not here yet")
