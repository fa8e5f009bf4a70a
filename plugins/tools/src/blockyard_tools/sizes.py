# SPDX-License-Identifier: Apache-2.0
"""Sizes as people write and read them."""

import math

__all__ = ["MAX_SIZE", "SIZE_LIMIT", "human_size", "parse_number", "parse_size", "size_and_bytes"]

#: Bytes of the largest image.
MAX_SIZE = (1 << 63) - 1
#: What a size may not reach in any case: 64 bits.
SIZE_LIMIT = 1 << 64

_UNITS = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def parse_size(text: str) -> int | None:
    """Bytes that ``text`` means: ``512``, ``0x200``, ``64k``, ``1.5G``; None if it means none.

    Suffixes are powers of 1024: k, M, G, T, P, E in either case, and B for bytes.  The
    answer is below :data:`SIZE_LIMIT`; what is more, or negative, is None as well.
    """
    from blockyard.schema.keyvalvisitor import parse_size as parse

    return parse(text)


def parse_number(text: str) -> int | None:
    """:func:`parse_size`, also of numbers that 64 bits do not hold.

    They become :data:`SIZE_LIMIT`, and negative ones -1.
    """
    found = parse_size(text)
    sign, digits = text.strip()[:1], text.strip()[1:]
    if sign == "-" and digits.isascii() and digits.isdigit() and int(digits):
        return -1
    if found is not None:
        return found
    digits = text.strip().lstrip("+")
    whole = digits[:-1] if digits[-1:].isalpha() else digits
    # Too large, then, and not malformed, if fewer digits would do.
    if whole.isascii() and whole.isdigit() and parse_size(f"1{digits[len(whole) :]}") is not None:
        return SIZE_LIMIT
    return None


def human_size(size: int) -> str:
    """``"1.5 GiB"``: three digits that count, in the unit that leaves fewer than 1000 of it."""
    power = max(0, (math.frexp(size * 1.024)[1] - 1) // 10) if size else 0
    return f"{size / (1 << (10 * power)):0.3g} {_UNITS[power]}B"


def size_and_bytes(size: int) -> str:
    """``"64 MiB (67108864 bytes)"``."""
    return f"{human_size(size)} ({size} bytes)"
