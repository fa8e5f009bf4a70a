# SPDX-License-Identifier: Apache-2.0
"""From checked data to objects of the declared classes, and back to JSON.

Building objects is cattrs' work.  Its converter is made on first use and learns a
class when the first value of it arrives, so that a process pays for what it uses.
"""

from __future__ import annotations

import enum
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, overload

from blockyard.errors import InvalidOption
from blockyard.schema.declare import NULL, Alternate, Null
from blockyard.schema.shape import (
    AlternateShape,
    BuiltinShape,
    EnumShape,
    MemberShape,
    ObjectShape,
    shape_of,
)
from blockyard.schema.visitor import check, json_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import cattrs

__all__ = ["bounded", "dump", "structure", "visit"]

_T = TypeVar("_T")


@overload
def visit(annotation: type[_T], value: Any, *, name: str | None = None) -> _T: ...


@overload
def visit(annotation: Any, value: Any, *, name: str | None = None) -> Any: ...


def visit(annotation: Any, value: Any, *, name: str | None = None) -> Any:
    """The object of type ``annotation`` that a JSON value describes.

    ``name`` is what errors call the whole value; without it they name members only.

    :raises InvalidOption: with QEMU's sentence for the first thing that is wrong.
    """
    with bounded():
        return structure(annotation, check(annotation, value, name=name))


def structure(annotation: Any, checked: Any) -> Any:
    """The object that data which a visitor has passed describes."""
    return _converter().structure(checked, annotation)


@contextmanager
def bounded() -> Iterator[None]:
    """Within it, a value that is nested deeper than Python's stack is refused in words.

    :raises InvalidOption: then.
    """
    try:
        yield
    except RecursionError:
        raise InvalidOption("The value is nested too deeply") from None


def dump(value: Any) -> Any:
    """The JSON form of an object of the schema; optional members that are None are left out."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [dump(item) for item in value]
    if isinstance(value, dict):
        return {key: dump(item) for key, item in value.items()}
    if hasattr(type(value), "__qapi__"):
        return _dump_object(value)
    return value


def _dump_object(value: Any) -> dict[str, Any]:
    shape = shape_of(type(value))
    assert isinstance(shape, ObjectShape)
    found = {}
    for member in shape.members:
        item = getattr(value, member.attribute)
        if item is not None or not member.optional:
            found[member.name] = dump(item)
    if shape.tag is not None and value.u is not None:
        found.update(_dump_object(value.u))
    return found


@cache
def _converter() -> cattrs.Converter:
    import cattrs

    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook(Null, lambda value, _: NULL)
    converter.register_structure_hook_factory(_is_object, lambda cls: _object_hook(converter, cls))
    converter.register_structure_hook_factory(
        _is_alternate, lambda tp: _alternate_hook(converter, tp)
    )
    return converter


def _is_object(annotation: Any) -> bool:
    return isinstance(annotation, type) and isinstance(_cached_shape(annotation), ObjectShape)


def _cached_shape(annotation: Any) -> Any:
    return shape_of(annotation) if "__qapi__" in annotation.__dict__ else None


def _is_alternate(annotation: Any) -> bool:
    marks = getattr(annotation, "__metadata__", ())
    return any(isinstance(mark, Alternate) for mark in marks)


def _object_hook(converter: cattrs.Converter, cls: type) -> Callable[[Any, Any], Any]:
    """How a ``cls`` is built.

    cattrs' own hooks are programs that it writes and compiles for each class, which takes
    longer than building the few objects of a command line or of a session.
    """
    shape = shape_of(cls)
    assert isinstance(shape, ObjectShape)
    members, tag = shape.members, shape.tag

    def structure_object(value: Any, _: Any) -> Any:
        built = cls(**{m.attribute: member(m, value[m.name]) for m in members if m.name in value})
        branch = shape.branch(value[tag.name]) if tag and tag.name in value else None
        if branch is not None:
            built.u = converter.structure(value, branch.cls)
        return built

    def member(member: MemberShape, value: Any) -> Any:
        return value if _is_plain(member) else converter.structure(value, member.annotation)

    return structure_object


def _is_plain(member: MemberShape) -> bool:
    """Whether values are already what the visitor made them."""
    shape = member.shape
    if isinstance(shape, EnumShape):
        return shape.cls is None
    return isinstance(shape, BuiltinShape) and shape.name != "null"


def _alternate_hook(converter: cattrs.Converter, annotation: Any) -> Callable[[Any, Any], Any]:
    shape = shape_of(annotation)
    assert isinstance(shape, AlternateShape)

    def structure_alternate(value: Any, _: Any) -> Any:
        return converter.structure(value, shape.type_by_json[json_type(value)])

    return structure_alternate
