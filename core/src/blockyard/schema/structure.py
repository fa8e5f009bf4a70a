# SPDX-License-Identifier: Apache-2.0
"""From checked data to objects of the declared classes, and back to JSON.

Objects of the declared classes are built here, and what holds them is cattrs' work, whose
converter is made on first use: a process pays for what it uses.
"""

from __future__ import annotations

import enum
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, overload

from blockyard.errors import InvalidOption
from blockyard.schema.declare import NULL, Alternate, Null, QEnum
from blockyard.schema.shape import (
    AlternateShape,
    BuiltinShape,
    EnumShape,
    MemberShape,
    ObjectShape,
    Shape,
    shape_of,
)
from blockyard.schema.visitor import check, json_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    import cattrs

__all__ = ["bounded", "dump", "structure", "visit"]

_T = TypeVar("_T")


@overload
def visit(
    annotation: type[_T], value: Any, *, name: str | None = None, older: bool = False
) -> _T: ...


@overload
def visit(annotation: Any, value: Any, *, name: str | None = None, older: bool = False) -> Any: ...


def visit(annotation: Any, value: Any, *, name: str | None = None, older: bool = False) -> Any:
    """The object of type ``annotation`` that a JSON value describes.

    ``name`` is what errors call the whole value; without it they name members only.
    ``older``: members may be unsaid (see :func:`~blockyard.schema.declare.member`).

    :raises InvalidOption: with QEMU's sentence for the first thing that is wrong.
    """
    with bounded():
        return structure(annotation, check(annotation, value, name=name, older=older))


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
        if item is not None or not (member.optional or member.unsaid):
            found[member.name] = dump(item)
    if shape.tag is not None and value.u is not None:
        found.update(_dump_object(value.u))
    return found


def structure(annotation: Any, value: Any) -> Any:
    """The object that data which a visitor has passed describes.

    Ours are built here.  cattrs' hooks for classes are programs that it writes and compiles
    for each one, which takes longer than building the few objects of a command line or of a
    session, as does importing it for a command line without lists.
    """
    shape = shape_of(annotation)
    if isinstance(shape, ObjectShape):
        return _build_object(shape, value)
    if isinstance(shape, AlternateShape):
        return structure(shape.type_by_json[json_type(value)], value)
    if isinstance(shape, EnumShape) and shape.cls is not None:
        return shape.cls(value)
    return value if _is_plain(shape) else _converter().structure(value, annotation)


def _build_object(shape: ObjectShape, value: Any) -> Any:
    members = [m for m in shape.members if m.name in value]
    given = {m.attribute: _build_member(m, value[m.name]) for m in members}
    built: Any = shape.cls(**given)
    branch = shape.selected(value)
    if branch is not None:
        built.u = _build_object(branch, value)
    return built


def _build_member(member: MemberShape, value: Any) -> Any:
    return value if _is_plain(member.shape) else structure(member.annotation, value)


def _is_plain(shape: Shape) -> bool:
    """Whether values are already what the visitor made them."""
    if isinstance(shape, EnumShape):
        return shape.cls is None
    return isinstance(shape, BuiltinShape) and shape.name != "null"


@cache
def _converter() -> cattrs.Converter:
    import cattrs

    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook(Null, lambda value, _: NULL)
    converter.register_structure_hook_func(_is_ours, lambda value, tp: structure(tp, value))
    return converter


def _is_ours(annotation: Any) -> bool:
    if isinstance(annotation, type):
        return "__qapi__" in annotation.__dict__ and not issubclass(annotation, QEnum)
    marks = getattr(annotation, "__metadata__", ())
    return any(isinstance(mark, Alternate) for mark in marks)
