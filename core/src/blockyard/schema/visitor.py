# SPDX-License-Identifier: Apache-2.0
"""Checking input against a type, in QEMU's order and words.

The order is that of QEMU's input visitor: members as declared, inherited ones
first, then the branch that the tag selects, then whatever nobody asked for; the
first thing that is wrong is what the error says.  QMP spec, section "Issuing
commands"; the sentences are the reference implementation's.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from blockyard.errors import InvalidOption
from blockyard.schema.declare import NULL
from blockyard.schema.shape import (
    AlternateShape,
    ArrayShape,
    BuiltinShape,
    EnumShape,
    MemberShape,
    ObjectShape,
    Shape,
    shape_of,
)

__all__ = ["JsonVisitor", "Place", "check", "json_type"]

#: Where a value is: (the container's place, member name or list index); None is the root.
Place: TypeAlias = "tuple[Place | None, str | int | None]"

_MISSING = object()
_RANGES = {
    name: (0 if name.startswith("u") else -(1 << bits - 1), (1 << bits - (name[0] == "i")) - 1)
    for bits in (8, 16, 32)
    for name in (f"int{bits}", f"uint{bits}")
}
_INT64 = range(-(1 << 63), 1 << 63)


def check(annotation: Any, value: Any, *, name: str | None = None, older: bool = False) -> Any:
    """Check a JSON value against a type; the result is plain data of the right kinds.

    ``name`` is what errors call the whole value; without it they name members only.
    ``older``: members may be unsaid (see :func:`~blockyard.schema.declare.member`).

    :raises InvalidOption: with QEMU's sentence for the first thing that is wrong.
    """
    visitor = JsonVisitor()
    visitor.older = older
    return visitor.visit(shape_of(annotation), value, (None, name))


class JsonVisitor:
    """Walks a value; scalars are what JSON gave."""

    #: How a list index is written in a full name.
    index_format = "[%d]"
    #: Whether members may be unsaid.
    older = False

    def visit(self, shape: Shape, value: Any, place: Place) -> Any:
        """The checked value.

        :raises InvalidOption: if it does not fit.
        """
        if isinstance(shape, BuiltinShape):
            return self.builtin(shape, value, place)
        if isinstance(shape, EnumShape):
            return self._enum(shape, value, place)
        if isinstance(shape, ObjectShape):
            return self._object(shape, value, place)
        if isinstance(shape, ArrayShape):
            return self._array(shape, value, place)
        return self._alternate(shape, value, place)

    def full_name(self, place: Place | None) -> str:
        """The value's path from the root, as errors spell it."""
        text = ""
        while place is not None:
            place, part = place
            if isinstance(part, int):
                text = self.index_format % part + text
            elif part is not None:
                text = (f".{part}" if place else part) + text
        return text.removeprefix(".") or "<anonymous>"

    def wrong_type(self, place: Place, expected: str) -> InvalidOption:
        """The refusal of a value of another JSON type."""
        name = self.full_name(place)
        return InvalidOption(f"Invalid parameter type for '{name}', expected: {expected}")

    def wrong_value(self, place: Place, expected: str) -> InvalidOption:
        """The refusal of a value outside its type's range."""
        return InvalidOption(f"Parameter '{self.full_name(place)}' expects {expected}")

    def _object(self, shape: ObjectShape, value: Any, place: Place) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.wrong_type(place, "object")
        found: dict[str, Any] = {}
        self._members(shape.members, value, place, found)
        branch = shape.selected(found)
        while branch is not None:
            self._members(branch.members, value, place, found)
            branch = branch.selected(found)
        if len(found) != len(value):
            self._unexpected(value, place, found)
        return found

    def _members(
        self,
        members: tuple[MemberShape, ...],
        value: dict[str, Any],
        place: Place,
        found: dict[str, Any],
    ) -> None:
        for member in members:
            item = value.get(member.name, _MISSING)
            if item is not _MISSING:
                found[member.name] = self.visit(member.shape, item, (place, member.name))
            elif not member.optional and not (self.older and member.unsaid):
                name = self.full_name((place, member.name))
                raise InvalidOption(f"Parameter '{name}' is missing")

    def _unexpected(self, value: dict[str, Any], place: Place, found: dict[str, Any]) -> None:
        from blockyard.schema.order import first_unvisited

        key = first_unvisited(list(value), found)
        raise InvalidOption(f"Parameter '{self.full_name((place, key))}' is unexpected")

    def _array(self, shape: ArrayShape, value: Any, place: Place) -> list[Any]:
        if not isinstance(value, list):
            raise self.wrong_type(place, "array")
        element = shape.element
        return [self.visit(element, item, (place, index)) for index, item in enumerate(value)]

    def _alternate(self, shape: AlternateShape, value: Any, place: Place) -> Any:
        branch = shape.by_json.get(json_type(value))
        if branch is None:
            raise InvalidOption(
                f"Invalid parameter type for '{_last(place)}', expected: {shape.name}"
            )
        return self.visit(branch, value, place)

    def _enum(self, shape: EnumShape, value: Any, place: Place) -> str:
        text = self.string(value, place)
        if text not in shape.values():
            raise InvalidOption(
                f"Parameter '{_last(place)}' does not accept value '{text}'{shape.hint(text)}"
            )
        return text

    def builtin(self, shape: BuiltinShape, value: Any, place: Place) -> Any:
        """A scalar, ``null`` or ``any``."""
        name = shape.name
        if name == "str":
            return self.string(value, place)
        if name == "bool":
            return self.boolean(value, place)
        if name in ("int", "int64"):
            return self.integer(value, place)
        if name in ("uint64", "size"):
            return self.size(value, place) if name == "size" else self.unsigned(value, place)
        if name in _RANGES:
            return self._ranged(name, value, place)
        if name == "number":
            return self.number(value, place)
        if name == "null" and value is not None and value is not NULL:
            raise self.wrong_type(place, "null")
        return value

    def _ranged(self, name: str, value: Any, place: Place) -> int:
        number = self.unsigned(value, place) if name[0] == "u" else self.integer(value, place)
        low, high = _RANGES[name]
        if not low <= number <= high:
            raise InvalidOption(f"Parameter '{_last(place)}' expects {name}_t")
        return number

    def string(self, value: Any, place: Place) -> str:
        """A ``str``."""
        if not isinstance(value, str):
            raise self.wrong_type(place, "string")
        return value

    def boolean(self, value: Any, place: Place) -> bool:
        """A ``bool``."""
        if not isinstance(value, bool):
            raise self.wrong_type(place, "boolean")
        return value

    def integer(self, value: Any, place: Place) -> int:
        """An ``int`` of 64 bits."""
        if not _is_int(value) or value not in _INT64:
            raise self.wrong_type(place, "integer")
        return int(value)

    def unsigned(self, value: Any, place: Place) -> int:
        """A ``uint64``; a negative number wraps, as it always did."""
        if not _is_int(value) or not -(1 << 63) <= value < 1 << 64:
            raise self.wrong_value(place, "uint64")
        return int(value) & (1 << 64) - 1

    def size(self, value: Any, place: Place) -> int:
        """A ``size``, which JSON writes as a ``uint64``."""
        return self.unsigned(value, place)

    def number(self, value: Any, place: Place) -> float:
        """A ``number``."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong_type(place, "number")
        return float(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _last(place: Place) -> str:
    """The local name, which is all that some of QEMU's sentences say."""
    part = place[1]
    return part if isinstance(part, str) else "null"


def json_type(value: Any) -> str:
    """The JSON type of a value, as alternates tell them apart."""
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if value is None:
        return "null"
    return "array" if isinstance(value, list) else "object"
