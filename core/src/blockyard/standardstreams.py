# SPDX-License-Identifier: Apache-2.0
"""Standard input, output and error, which whoever starts a program may have closed."""

import os
import sys

__all__ = ["hold_standard_streams"]


def hold_standard_streams() -> None:
    """Let /dev/null stand for those that are closed.

    An image would be opened under their numbers otherwise, and what is printed would
    end in it.
    """
    while (found := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(found, True)
    os.close(found)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
