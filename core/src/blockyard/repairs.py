# SPDX-License-Identifier: Apache-2.0
"""What is told of an image that is mended as it is opened: a line for each fault."""

import logging

__all__ = ["REPAIRS", "tell_bare"]

#: Where drivers tell it.
REPAIRS = logging.getLogger("blockyard.repairs")


def tell_bare() -> None:
    """Print the lines to standard error as they are, without a program's name.

    The same lines as a check prints: those who read one can read the other.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    REPAIRS.addHandler(handler)
    REPAIRS.propagate = False
