# SPDX-License-Identifier: Apache-2.0
"""Options in the order in which they are given, by the rules of getopt_long(3).

A long option may be shortened as long as it is unique and take its argument after ``=`` or
as the next word; short options may be put together; ``--`` ends them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Given", "UsageError", "parse"]


class UsageError(Exception):
    """Raised when the words do not follow the rules; the text is getopt_long's."""


@attrs.frozen
class Given:
    """One option as it was given; name is empty for a word that is no option."""

    name: str
    argument: str | None
    #: The words, as errors show them.
    text: str


def parse(words: list[str], long: Mapping[str, bool], short: Mapping[str, str]) -> list[Given]:
    """The options in ``words``.

    ``long``: name -> whether it takes an argument; ``short``: letter -> long name.

    :raises UsageError: for the first that is unknown, ambiguous, or lacks its argument.
    """
    rest = list(words)
    found: list[Given] = []
    while rest:
        word = rest.pop(0)
        if word == "--":
            return found + [Given("", each, each) for each in rest]
        if word.startswith("--"):
            found.append(_long(word, rest, long))
        elif word.startswith("-") and word != "-":
            found += _short(word, rest, long, short)
        else:
            found.append(Given("", word, word))
    return found


def _long(word: str, rest: list[str], long: Mapping[str, bool]) -> Given:
    typed, equals, argument = word[2:].partition("=")
    name = _complete(typed, long)
    if not long[name]:
        if equals:
            raise UsageError(f"option '--{name}' doesn't allow an argument")
        return Given(name, None, word)
    if equals:
        return Given(name, argument, word)
    if not rest:
        raise UsageError(f"option '--{name}' requires an argument")
    argument = rest.pop(0)
    return Given(name, argument, f"{word} {argument}")


def _complete(typed: str, long: Mapping[str, bool]) -> str:
    if typed in long:
        return typed
    matches = [name for name in long if name.startswith(typed)]
    if not matches:
        raise UsageError(f"unrecognized option '--{typed}'")
    if len(matches) > 1:
        choice = "".join(f" '--{name}'" for name in matches)
        raise UsageError(f"option '--{typed}' is ambiguous; possibilities:{choice}")
    return matches[0]


def _short(
    word: str, rest: list[str], long: Mapping[str, bool], short: Mapping[str, str]
) -> Iterator[Given]:
    for index, letter in enumerate(word[1:], start=1):
        if letter not in short:
            raise UsageError(f"invalid option -- '{letter}'")
        name = short[letter]
        if not long[name]:
            yield Given(name, None, word)
            continue
        if word[index + 1 :]:
            yield Given(name, word[index + 1 :], word)
        elif rest:
            argument = rest.pop(0)
            yield Given(name, argument, f"{word} {argument}")
        else:
            raise UsageError(f"option requires an argument -- '{letter}'")
        return
