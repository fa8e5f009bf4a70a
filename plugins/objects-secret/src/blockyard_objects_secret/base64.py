# SPDX-License-Identifier: Apache-2.0
"""Base64 as QEMU reads it: strict about characters, lenient about the rest, as GLib is."""

from __future__ import annotations

from blockyard.errors import InvalidOption

__all__ = ["decode"]

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_RANK = {byte: rank for rank, byte in enumerate(_ALPHABET)}
_PAD = ord("=")
_RANK[_PAD] = 0
_VALID = frozenset(_ALPHABET + b"=\n")


def decode(text: bytes) -> bytes:
    """The bytes that groups of four characters stand for; an unfinished group is left out.

    :raises InvalidOption: if there are other characters, with QEMU's text.
    """
    if b"\0" in text:
        raise InvalidOption("Base64 data contains embedded NUL characters")
    if not _VALID.issuperset(text):
        raise InvalidOption("Base64 data contains invalid characters")
    symbols = text.replace(b"\n", b"")
    whole = len(symbols) // 4 * 4
    return b"".join(_group(symbols[at : at + 4]) for at in range(0, whole, 4))


def _group(four: bytes) -> bytes:
    value = 0
    for symbol in four:
        value = value << 6 | _RANK[symbol]
    three = value.to_bytes(3, "big")
    second = three[1:2] if four[2] != _PAD else b""
    third = three[2:3] if four[3] != _PAD else b""
    return three[:1] + second + third
