# SPDX-License-Identifier: Apache-2.0
"""The options by which people make and amend images: ``-o cluster_size=64k,compat=1.1``.

They are older than QAPI's and called otherwise.  A driver that can make images from
them has a :class:`Creation`; its declaration names it (``creation="module:NAME"``).
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING

import attrs

from blockyard.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "EXISTING",
    "PREALLOCATION",
    "SIZE",
    "CreateOption",
    "Creation",
    "Kind",
    "boolean",
    "described",
]

_UINT64_MAX = (1 << 64) - 1
_SIGN = 1 << 63
_SIZE_HINT = (
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, "
    "respectively."
)
_WORDS = {"on": True, "yes": True, "true": True, "y": True}
_WORDS |= {"off": False, "no": False, "false": False, "n": False}


class Kind(enum.Enum):
    """What an option's value is; the value of each is its name in help texts."""

    TEXT = "str"
    BOOL = "bool (on/off)"
    NUMBER = "num"
    SIZE = "size"


@attrs.frozen
class CreateOption:
    """One option."""

    name: str
    kind: Kind
    #: What it is, for people; a few words without a dot.
    help: str
    #: What the image has if nothing is said, where that is told when it is made.
    default: str | None = None

    def check(self, value: str) -> None:
        """Refuse a value that is none of the kind.

        :raises InvalidOption: with QEMU's text.
        """
        _CHECKS[self.kind](self.name, value)

    def shown(self, value: str) -> str:
        """A good value as it is told when the image is made."""
        if self.kind is Kind.SIZE:
            return str(_size(value))
        if self.kind is Kind.NUMBER:
            return str((_number(value) + _SIGN) % (1 << 64) - _SIGN)
        return value.replace(",", ",,") if self.kind is Kind.TEXT else value


@attrs.frozen(kw_only=True)
class Creation:
    """How a driver makes images from these options.

    A format's image lies in a file of a protocol, which is made first, from the
    options that the format does not know.  Then the driver's ``create`` is called with
    its ``create_options``.
    """

    #: In the order in which they are told when an image is made.
    options: tuple[CreateOption, ...]
    #: What can be changed later; None if that is not possible.
    amend: tuple[CreateOption, ...] | None = None
    #: For a format that adds nothing: what makes the file makes the image.
    transparent: bool = False
    #: For a protocol whose images cannot be made, only used again: one that exists is
    #: opened and given its size.
    existing: bool = False
    #: The members of ``create_options`` that the options stand for, as texts: dotted
    #: names where they are nested.  By default each is called as the option, with
    #: dashes.  It may raise InvalidOption.
    members: Callable[[Mapping[str, str]], dict[str, str]] | None = None
    #: The same for ``amend_options``.
    amend_members: Callable[[Mapping[str, str]], dict[str, str]] | None = None

    def named(self, name: str) -> CreateOption | None:
        """The option of that name."""
        return next((each for each in self.options if each.name == name), None)

    def translated(self, values: Mapping[str, str]) -> dict[str, str]:
        """The members of ``create_options`` that ``values`` stand for.

        :raises InvalidOption: if they contradict each other.
        """
        if self.members is not None:
            return self.members(values)
        return {name.replace("_", "-"): value for name, value in values.items()}


def described(options: Iterable[CreateOption]) -> str:
    """A line for each option, sorted, as ``-o help`` has them."""
    lines = [f"  {f'{each.name}=<{each.kind.value}>':<22} - {each.help}" for each in options]
    return "\n".join(sorted(lines))


def boolean(name: str, value: str) -> bool:
    """What an option's text means.

    :raises InvalidOption: if that is neither on nor off.
    """
    if value not in _WORDS:
        raise InvalidOption(f"Parameter '{name}' expects 'on' or 'off'")
    return _WORDS[value]


def _check_size(name: str, value: str) -> None:
    if _size(value) is not None:
        return
    if _too_large(value):
        raise InvalidOption(f"Value '{value}' is out of range for parameter '{name}'")
    raise InvalidOption(
        f"Parameter '{name}' expects a non-negative number below 2^64\n{_SIZE_HINT}"
    )


def _too_large(value: str) -> bool:
    """Whether it is a number, but one of too many digits or less than nothing."""
    if re.fullmatch(r"\s*-\d+", value, re.ASCII):
        return int(value) < 0
    return re.fullmatch(r"\s*\+?\d+[bkmgtpe]?", value, re.ASCII | re.IGNORECASE) is not None


def _size(value: str) -> int | None:
    from blockyard.schema.keyvalvisitor import parse_size

    return parse_size(value)


def _number(value: str) -> int:
    digits = value.strip()
    if re.fullmatch(r"[+-]?0[0-7]+", digits, re.ASCII):
        return int(digits, 8)
    return int(digits, 0)


def _check_number(name: str, value: str) -> None:
    try:
        number = _number(value)
    except ValueError:
        raise InvalidOption(f"Parameter '{name}' expects a number") from None
    if abs(number) > _UINT64_MAX:
        raise InvalidOption(f"Value '{value}' is too large for parameter '{name}'")


def _check_text(name: str, value: str) -> None:
    """Any text will do."""


_CHECKS: dict[Kind, Callable[[str, str], object]] = {
    Kind.TEXT: _check_text,
    Kind.BOOL: boolean,
    Kind.NUMBER: _check_number,
    Kind.SIZE: _check_size,
}

#: What most drivers have.
SIZE = CreateOption("size", Kind.SIZE, "Virtual disk size")
PREALLOCATION = CreateOption("preallocation", Kind.TEXT, "Preallocation mode (allowed values: off)")

#: For protocols whose images cannot be made, only used again.
EXISTING = Creation(options=(SIZE, PREALLOCATION), existing=True)
