# SPDX-License-Identifier: Apache-2.0
"""What a sub-command is: one description gives its options, its help, and its complaints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from blockyard_tools.error import ProgramError
from blockyard_tools.options import Line, parse, spec

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PROGRAM", "Command", "Opt", "common", "failed"]

#: The name that complaints begin with.
PROGRAM = "qemu-img"
_WIDTH = 78


@attrs.frozen
class Opt:
    """An option: ``name|letter=`` as :func:`blockyard_tools.options.spec` has it."""

    words: str
    #: What it does, for people.
    help: str
    #: What its argument is called.
    argument: str = ""
    #: Another name that is still understood and not told of.
    also: str = ""

    def lines(self) -> list[str]:
        """The option's place in a help text."""
        name, _, letter = self.words.removesuffix("=").partition("|")
        shown = [f"-{letter}"] * bool(letter) + [f"--{name}"] * bool(name)
        head = f"  {', '.join(shown)} {self.argument}".rstrip()
        return [head, *_wrapped(self.help)]


@attrs.frozen(kw_only=True)
class Command:
    """A sub-command."""

    name: str
    #: A line for the list of them.
    summary: str
    #: What follows the name, in one line or several.
    usage: str
    options: tuple[Opt, ...]
    #: The words that are no options: name and explanation.
    words: tuple[tuple[str, str], ...]
    #: More for its readers: examples.
    more: str = ""

    @property
    def hint(self) -> str:
        """The line that follows a complaint about the words."""
        return f"Try '{PROGRAM} {self.name} --help' for more info"

    def parse(self, words: Sequence[str]) -> Line:
        """The options in ``words``.

        :raises ProgramError: if they are wrong; with the status 0, when help was asked for
            and has been printed.
        """
        taken = ["help|h", *(each.words for each in self.options)]
        taken += [each.also for each in self.options if each.also]
        line = parse(words, spec(*taken), f"{PROGRAM} {self.name}", self.hint)
        if line.has("help"):
            print(self.help())
            raise ProgramError(PROGRAM, status=0)
        return line

    def wrong(self, text: str) -> ProgramError:
        """The error for words that do not make sense: the text, and where to find help."""
        return ProgramError(PROGRAM, f"{text}\n{self.hint}")

    def help(self) -> str:
        """All about it."""
        usage = [line.strip() for line in self.usage.splitlines()]
        lines = ["Usage:", f"  {PROGRAM} {self.name} {usage[0]}"]
        lines += [f"        {line}" for line in usage[1:]]
        lines += ["", f"{self.summary}.", "", "Arguments:", "  -h, --help"]
        lines += _wrapped("print this help and exit")
        for option in self.options:
            lines += option.lines()
        for name, explanation in self.words:
            lines += [f"  {name}", *_wrapped(explanation)]
        return "\n".join([*lines, "", *([self.more, ""] if self.more else [])]).rstrip("\n") + "\n"


def _wrapped(text: str) -> list[str]:
    import textwrap

    indent = " " * 5
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)


#: Options that many sub-commands share.
_COMMON = {
    "format": Opt("format|f=", "the image's format (default: found out by its content)", "FMT"),
    "image-opts": Opt(
        "image-opts", "FILE is options, key=value,..., and not a name (not together with -f)"
    ),
    "cache": Opt("cache|t=", "how the host's cache is used (default: writeback)", "CACHE"),
    "force-share": Opt("force-share|U", "open the image even while another process writes to it"),
    "output": Opt("output=", "how the answer is written (default: human)", "human|json"),
    "quiet": Opt("quiet|q", "print nothing but errors"),
    "progress": Opt("progress|p", "show how far it is"),
    "object": Opt(
        "object=",
        "make an object that images refer to, a secret with their key above all",
        "OBJDEF",
    ),
}


def common(*names: str) -> tuple[Opt, ...]:
    """Options that are the same for many sub-commands, by their long names."""
    return tuple(_COMMON[name] for name in names)


def failed(text: str, status: int = 1) -> ProgramError:
    """The error that ends a sub-command with ``qemu-img: text``."""
    return ProgramError(PROGRAM, text, status)
