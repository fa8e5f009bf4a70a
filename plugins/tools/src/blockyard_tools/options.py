# SPDX-License-Identifier: Apache-2.0
"""The options of the programs, parsed as getopt_long(3) does.

::

    SPEC = spec("help|h", "format|f=", "image-opts", "|q")
    given = parse(words, SPEC, "qemu-img info")
    if given.has("help"): ...
    fmt = given.last("format")
    (name,) = given.words
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from blockyard.daemon.getopt import Given, UsageError
from blockyard.daemon.getopt import parse as parse_words
from blockyard_tools.error import ProgramError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Given", "Line", "Spec", "UsageError", "parse", "spec"]


@attrs.frozen
class Spec:
    """The options that a program or a sub-command takes."""

    #: By the long name: whether it takes an argument.
    long: dict[str, bool]
    #: By the letter: the long name.
    short: dict[str, str]


def spec(*options: str) -> Spec:
    """Options, each as ``name|letter=``: either may be left out; ``=`` where there is an argument.

    An option that has only a letter is called ``-letter`` in what was given.
    """
    long: dict[str, bool] = {}
    short: dict[str, str] = {}
    for option in options:
        name, _, letter = option.removesuffix("=").partition("|")
        name = name or f"-{letter}"
        long[name] = option.endswith("=")
        if letter:
            short[letter] = name
    return Spec(long, short)


@attrs.frozen
class Line:
    """What was given, in order; the words that are no options apart from it."""

    options: tuple[Given, ...]
    words: tuple[str, ...]

    def __iter__(self) -> Iterator[Given]:
        return iter(self.options)

    def has(self, name: str) -> bool:
        """Whether the option was given."""
        return any(each.name == name for each in self.options)

    def all(self, name: str) -> list[str]:
        """The arguments of an option, in the order in which they were given."""
        return [each.argument or "" for each in self.options if each.name == name]

    def last(self, name: str) -> str | None:
        """The argument that counts where an option is given more than once; None without it."""
        return next(reversed(self.all(name)), None)


def parse(words: Sequence[str], known: Spec, program: str, hint: str = "") -> Line:
    """The options in ``words``.

    ``program`` is the name that complaints begin with (``qemu-img info``); ``hint`` is
    a line that follows them.

    :raises ProgramError: for the first option that is unknown, ambiguous, or lacks its
        argument, in getopt_long's words.
    """
    try:
        given = parse_words(list(words), known.long, known.short)
    except UsageError as error:
        raise ProgramError(program, f"{error}\n{hint}" if hint else str(error)) from None
    options = tuple(each for each in given if each.name)
    return Line(options, tuple(each.argument or "" for each in given if not each.name))
