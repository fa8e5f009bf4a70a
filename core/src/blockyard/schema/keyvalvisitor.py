# SPDX-License-Identifier: Apache-2.0
"""Checking what the command line's strings say, in QEMU's order and words."""

from __future__ import annotations

import re
from typing import Any, TypeVar, overload

from blockyard.errors import InvalidOption
from blockyard.pattern import Pattern
from blockyard.schema.keyval import parse
from blockyard.schema.shape import shape_of
from blockyard.schema.structure import bounded, structure, visit
from blockyard.schema.visitor import JsonVisitor, Place

__all__ = ["check_keyval", "json_or_keyval", "parse_size", "visit_keyval", "visit_text"]

_T = TypeVar("_T")

_TRUE = frozenset(("on", "yes", "true", "y"))
_FALSE = frozenset(("off", "no", "false", "n"))
_INTEGER = Pattern(r"[ \t\n\v\f\r]*([+-]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[0-7]*|[1-9][0-9]*)")
_BASES = {"0x": 16, "0b": 2}
_NUMBER = Pattern(r"[ \t\n\v\f\r]*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_HEX_SIZE = Pattern(r"[ \t\n\v\f\r]*\+?0[xX]([0-9a-fA-F]+)")
_SIZE = Pattern(r"[ \t\n\v\f\r]*\+?(\d+(?:\.\d*)?|\.\d+)([bkmgtpe]?)", re.ASCII | re.IGNORECASE)
_UINT64_MAX = (1 << 64) - 1


def json_or_keyval(text: str, implied: str | None = None) -> tuple[dict[str, Any], bool]:
    """An option's argument: JSON if it begins with ``{``, else keyval; and whether it was keyval.

    :raises InvalidOption: if it is neither.
    """
    if not text.startswith("{"):
        return parse(text, implied), True
    from blockyard.schema.jsontext import parse as parse_json

    return parse_json(text.encode("utf-8", "surrogateescape")), False


@overload
def visit_keyval(annotation: type[_T], value: Any, *, suffixes: bool = False) -> _T: ...


@overload
def visit_keyval(annotation: Any, value: Any, *, suffixes: bool = False) -> Any: ...


def visit_keyval(annotation: Any, value: Any, *, suffixes: bool = False) -> Any:
    """Like :func:`~blockyard.schema.visit`, of what :func:`~blockyard.schema.keyval.parse` made.

    ``suffixes``: every number may be written as a size is, ``2M``.

    :raises InvalidOption: with QEMU's sentence for the first thing that is wrong.
    """
    visitor = SuffixVisitor() if suffixes else KeyvalVisitor()
    with bounded():
        return structure(annotation, visitor.visit(shape_of(annotation), value, (None, None)))


def check_keyval(annotation: Any, value: Any) -> Any:
    """The plain data that keyval's strings mean for a type.

    :raises InvalidOption: with QEMU's sentence for the first thing that is wrong.
    """
    return KeyvalVisitor().visit(shape_of(annotation), value, (None, None))


def visit_text(annotation: Any, text: str, implied: str | None = None) -> Any:
    """The object that an option's argument, JSON or keyval, describes.

    :raises InvalidOption: with QEMU's sentence for the first thing that is wrong.
    """
    value, is_keyval = json_or_keyval(text, implied)
    return visit_keyval(annotation, value) if is_keyval else visit(annotation, value)


class KeyvalVisitor(JsonVisitor):
    """Walks keyval's data; scalars are strings."""

    index_format = ".%d"

    def boolean(self, value: Any, place: Place) -> bool:
        """``on`` or ``off``, and what else ever meant them."""
        text = self._scalar(value, place)
        if text not in _TRUE and text not in _FALSE:
            raise self.wrong_value(place, "'on' or 'off'")
        return text in _TRUE

    def integer(self, value: Any, place: Place) -> int:
        """A decimal, hexadecimal (0x), binary (0b) or octal (0) number."""
        number = self._number(value, place)
        if not -(1 << 63) <= number < 1 << 63:
            raise self.wrong_value(place, "integer")
        return number

    def unsigned(self, value: Any, place: Place) -> int:
        """Like :meth:`integer`; a negative number wraps."""
        number = self._number(value, place)
        if abs(number) > _UINT64_MAX:
            raise self.wrong_value(place, "integer")
        return number & _UINT64_MAX

    def size(self, value: Any, place: Place) -> int:
        """Bytes, with a suffix or without."""
        size = parse_size(self._scalar(value, place))
        if size is None:
            raise self.wrong_value(place, "size")
        return size

    def number(self, value: Any, place: Place) -> float:
        """A decimal fraction."""
        text = self._scalar(value, place)
        number = float(text) if _NUMBER.fullmatch(text) else float("inf")
        if number in (float("inf"), float("-inf")):
            raise self.wrong_type(place, "number")
        return number

    def string(self, value: Any, place: Place) -> str:
        """The string itself."""
        return self._scalar(value, place)

    def _number(self, value: Any, place: Place) -> int:
        match = _INTEGER.fullmatch(self._scalar(value, place))
        if match is None or len(match[2]) > 100:
            raise self.wrong_value(place, "integer")
        digits = match[2].lower()
        base = _BASES.get(digits[:2]) or (8 if digits[0] == "0" else 10)
        number = int(digits, base)
        return -number if match[1] == "-" else number

    def _scalar(self, value: Any, place: Place) -> str:
        if not isinstance(value, str):
            raise InvalidOption(f"Parameters '{self.full_name(place)}.*' are unexpected")
        return value


class SuffixVisitor(KeyvalVisitor):
    """Takes sizes for numbers, as the older form of options does."""

    older = True

    def _number(self, value: Any, place: Place) -> int:
        size = parse_size(self._scalar(value, place))
        return super()._number(value, place) if size is None else size


def parse_size(text: str) -> int | None:
    """Bytes that ``text`` means (``512``, ``0x200``, ``64k``, ``1.5G``); None if it means none.

    Suffixes are powers of 1024: k, M, G, T, P, E in either case, and B for bytes.
    """
    match = _HEX_SIZE.fullmatch(text)
    if match:
        size = int(match[1], 16)
        return size if size <= _UINT64_MAX else None
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    whole, _, digits = match[1].partition(".")
    scale = 1024 ** "bkmgtpe".index(match[2].lower() or "b")
    return _scaled(whole, digits, scale) if len(whole) < 30 else None


def _scaled(whole: str, digits: str, scale: int) -> int | None:
    """``whole.digits`` times ``scale``, in 64.64 fixed point as QEMU has it."""
    fraction = float(f"0.{digits or 0}")
    integer = int(whole or "0")
    if fraction == 1.0:
        integer, fraction = integer + 1, 0.0
    part = int(fraction * 2.0**64) or int(fraction > 0.0)
    if scale == 1 and part:
        return None
    part *= scale
    size = integer * scale + (part >> 64) + (part >> 63 & 1)
    return size if size <= _UINT64_MAX and integer <= _UINT64_MAX else None
