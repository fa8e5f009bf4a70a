# SPDX-License-Identifier: Apache-2.0
"""The words of a command: options as getopt(3) takes them, numbers, pattern bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard_tools.io.failure import Failed, Misused
from blockyard_tools.sizes import MAX_SIZE, SIZE_LIMIT, parse_number

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Words", "integer", "number", "pattern", "split"]


def split(line: str) -> list[str]:
    """The words of a command line; only spaces part them, and nothing quotes them."""
    return [word for word in line.split(" ") if word]


class Words:
    """The arguments of a command.

    Iterating gives each option's letter with its argument, one by one, so that what is
    wrong with the first is told before the second is looked at; :attr:`rest` is complete
    afterwards.
    """

    def __init__(self, words: list[str], letters: str = "") -> None:
        """``letters`` as for getopt(3): ``"CP:"``, a colon behind one with an argument."""
        self._waiting = list(words)
        self._letters = letters
        #: The words that are no options.
        self.rest: list[str] = []

    def __iter__(self) -> Iterator[tuple[str, str]]:
        while self._waiting:
            word = self._waiting.pop(0)
            if word == "--":
                self.rest += self._waiting
                return
            if word.startswith("-") and word != "-":
                yield from self._cluster(word[1:])
            else:
                self.rest.append(word)

    def _cluster(self, word: str) -> Iterator[tuple[str, str]]:
        while word:
            letter, word = word[0], word[1:]
            if letter not in self._letters or letter == ":":
                raise Misused(f"invalid option -- '{letter}'")
            if f"{letter}:" not in self._letters:
                yield letter, ""
            elif word or self._waiting:
                yield letter, word or self._waiting.pop(0)
                return
            else:
                raise Misused(f"option requires an argument -- '{letter}'")

    def expect(self, count: int) -> list[str]:
        """:attr:`rest`, which has to be of so many words."""
        if len(self.rest) != count:
            raise Misused
        return self.rest


def number(text: str, shown: str | None = None) -> int:
    """An offset or a length: ``512``, ``0x200``, ``64k``, ``1.5M``.

    :raises Failed: if it is none, naming ``shown``.
    """
    found = parse_number(text)
    if found is not None and 0 <= found <= MAX_SIZE:
        return found
    negative = text.startswith("-") and text[1:].isdecimal()
    if negative or (found is not None and found <= SIZE_LIMIT):
        raise Failed(f"Parsing error: argument too large -- {shown or text}")
    raise Failed(
        f"Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {shown or text}"
    )


def integer(text: str) -> int | None:
    """A number as strtol(3) takes it, with base 0; None if it is none."""
    body = text.strip()
    sign = -1 if body.startswith("-") else 1
    digits = body.lstrip("+-") if body[:1] in ("+", "-") and body[1:2] not in ("+", "-") else body
    try:
        if digits[:2].lower() == "0x":
            return sign * int(digits, 16)
        octal = digits.startswith("0") and len(digits) > 1
        return sign * int(digits, 8 if octal else 10) if digits.isdecimal() else None
    except ValueError:
        return None


def pattern(text: str) -> int:
    """A byte's value.

    :raises Failed: if it is none.
    """
    found = integer(text)
    if found is None or not 0 <= found <= 0xFF:
        raise Failed(f"{text} is not a valid pattern byte")
    return found
