# SPDX-License-Identifier: Apache-2.0
"""How a command fails."""

__all__ = ["Failed", "Misused", "reason"]


class Failed(Exception):  # noqa: N818
    """Raised when a command fails; the text, if any, is a line for standard output."""


class Misused(Exception):  # noqa: N818
    """Raised when a command's words do not suit it: its usage is shown.

    The text, if any, is what getopt(3) would say.
    """


def reason(error: OSError) -> str:
    """The system's words for the error."""
    return error.strerror or str(error)
