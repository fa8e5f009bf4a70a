# SPDX-License-Identifier: Apache-2.0
"""Numbers on command lines, with qemu-img's complaints."""

from __future__ import annotations

from blockyard_tools.img.command import failed

__all__ = ["INT_MAX", "bounded"]

INT_MAX = (1 << 31) - 1
_INT64_MAX = (1 << 63) - 1


def bounded(text: str, what: str, low: int = 0, high: int = _INT64_MAX) -> int:
    """The number that ``text`` means, with a suffix or without.

    :raises ProgramError: if it is none, or not between ``low`` and ``high``.
    """
    from blockyard_tools.sizes import parse_number

    negative = text.strip().startswith("-")
    number = parse_number(text.strip().removeprefix("-") if negative else text)
    if number is None:
        raise failed(f"Invalid {what} specified: '{text}'.")
    if (negative and number) or not low <= number <= high:
        raise failed(f"Invalid {what} specified. Must be between {low} and {high}.")
    return number
