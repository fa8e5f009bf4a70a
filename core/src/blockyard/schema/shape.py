# SPDX-License-Identifier: Apache-2.0
"""What a declared type looks like to the visitor, introspection and help.

:func:`shape_of` turns an annotation into one of the shapes below, once per type,
when somebody first needs it.  Members resolve lazily too, so recursive types
(a BlockdevOptions holds BlockdevRefs) cost only what is visited.
"""

from __future__ import annotations

import sys
import types
import typing
from functools import cached_property
from typing import Any, Protocol, TypeAlias

from blockyard.errors import BlockyardError
from blockyard.schema.declare import (
    REQUIRED,
    Alternate,
    Branches,
    Builtin,
    Member,
    Null,
    OpenEnum,
    QEnum,
    TypeInfo,
)

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "AlternateShape",
    "ArrayShape",
    "BranchSource",
    "BuiltinShape",
    "EnumShape",
    "MemberShape",
    "ObjectShape",
    "Shape",
    "attribute_types",
    "branch_source",
    "provide",
    "shape_of",
]


class BranchSource(Protocol):
    """What the registry says of a union that plugins extend."""

    def names(self) -> Iterable[str]:
        """The tag values that are installed."""

    def options(self, name: str) -> type | None:
        """The struct of an installed value's branch; None when it has no members."""

    def hint(self, name: str) -> str:
        """What to add to the refusal of an unknown value (``"; install the package x"``)."""


_sources: dict[str, BranchSource] = {}


def provide(union_name: str, source: BranchSource) -> None:
    """Let ``source`` give the branches of the union ``union_name`` from now on."""
    _sources[union_name] = source


def branch_source(union_name: str) -> BranchSource | None:
    """Who gives the branches of ``union_name``, if somebody does."""
    return _sources.get(union_name)


class BuiltinShape:
    """A QAPI built-in type; ``json`` is its JSON type as introspection says it."""

    def __init__(self, name: str, json: str) -> None:
        self.name = name
        self.json = json


class EnumShape:
    """An enum; ``cls`` is None for one whose values the registry knows."""

    def __init__(
        self,
        name: str,
        cls: type[QEnum] | None,
        values: Callable[[], list[str]],
        source: str | None,
    ) -> None:
        self.name = name
        self.cls = cls
        self.values = values
        self.source = source
        info: TypeInfo = getattr(cls, "__qapi__", TypeInfo(name))
        self.features = info.features
        self.value_features = info.value_features

    def hint(self, value: str) -> str:
        """What to add to the refusal of ``value``."""
        source = _sources.get(self.source) if self.source else None
        return source.hint(value) if source else ""


class ArrayShape:
    """A list of ``element``."""

    def __init__(self, element: Shape) -> None:
        self.element = element
        self.name: str = f"[{element.name}]"


class AlternateShape:
    """Branches selected by the JSON type of the value."""

    def __init__(self, alternate: Alternate) -> None:
        self.name = alternate.name
        self._alternate = alternate

    @cached_property
    def types(self) -> Mapping[str, Any]:
        """Branch name -> annotation."""
        return self._alternate.resolve()

    @cached_property
    def branches(self) -> dict[str, Shape]:
        """Branch name -> shape, in declared order."""
        return {name: shape_of(tp) for name, tp in self.types.items()}

    @cached_property
    def by_json(self) -> dict[str, Shape]:
        """JSON type (``object``, ``string``, ``number``...) -> shape."""
        return {_json_type(shape): shape for shape in self.branches.values()}

    @cached_property
    def type_by_json(self) -> dict[str, Any]:
        """JSON type -> annotation."""
        return {_json_type(self.branches[name]): tp for name, tp in self.types.items()}


class MemberShape:
    """A member of an object: ``name`` in QAPI, ``attribute`` in Python."""

    def __init__(
        self, attribute: str, name: str, annotation: Any, optional: bool, spec: Member
    ) -> None:
        self.attribute = attribute
        self.name = name
        self.annotation = annotation
        self.optional = optional
        self.default = spec.default
        self.unsaid = spec.unsaid
        self.features = spec.features
        self.doc = spec.doc

    @cached_property
    def shape(self) -> Shape:
        """The shape of its values."""
        return shape_of(self.annotation)


class ObjectShape:
    """A struct or a union (``tag`` is then the member that selects the branch)."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.info: TypeInfo = cls.__qapi__  # type: ignore[attr-defined]
        self.name = self.info.name
        self.features = self.info.features

    @cached_property
    def members(self) -> tuple[MemberShape, ...]:
        """Inherited members first, in source order, without the branches."""
        found: dict[str, MemberShape] = {}
        for base in reversed(self.cls.__mro__):
            if "__qapi__" in base.__dict__:
                found.update(_own_members(base))
        return tuple(found.values())

    @cached_property
    def _union(self) -> TypeInfo | None:
        """The declaration that has the branches: the class's own or an inherited one."""
        infos = (base.__dict__.get("__qapi__") for base in self.cls.__mro__)
        return next((info for info in infos if info and info.branches), None)

    @cached_property
    def tag(self) -> MemberShape | None:
        """The member that selects the branch; None in a struct."""
        if self._union is None:
            return None
        return next(m for m in self.members if m.attribute == self._union.tag)

    def cases(self) -> list[str]:
        """The tag's values, all of which select a branch, be it an empty one."""
        shape = self.tag.shape if self.tag else None
        return shape.values() if isinstance(shape, EnumShape) else []

    def selected(self, members: Mapping[str, Any]) -> ObjectShape | None:
        """The branch that the tag among ``members`` selects; the first where it is unsaid."""
        if self.tag is None:
            return None
        if self.tag.name in members:
            return self.branch(members[self.tag.name])
        return self.branch(self.cases()[0]) if self.tag.unsaid else None

    def branch(self, value: str) -> ObjectShape | None:
        """The branch that ``value`` of the tag selects; None when it adds no members."""
        declared = self._branches
        if value in declared.fixed:
            cls = declared.fixed[value]
        else:
            source = _sources.get(declared.source) if declared.source else None
            cls = source.options(value) if source else None
        shape = shape_of(cls) if cls is not None else None
        return shape if isinstance(shape, ObjectShape) else None

    @property
    def _branches(self) -> Branches:
        return (self._union and self._union.branches) or Branches({})


Shape: TypeAlias = BuiltinShape | EnumShape | ArrayShape | AlternateShape | ObjectShape

_PLAIN = {
    int: BuiltinShape("int", "int"),
    str: BuiltinShape("str", "string"),
    bool: BuiltinShape("bool", "boolean"),
    float: BuiltinShape("number", "number"),
    Null: BuiltinShape("null", "null"),
    Any: BuiltinShape("any", "value"),
}
_cache: dict[Any, Shape] = dict(_PLAIN)


def shape_of(annotation: Any) -> Shape:
    """The shape of a type: a struct, union or enum class, ``list[...]``, an alternate, a built-in.

    :raises TypeError: if the annotation is none of them.
    """
    shape = _cache.get(annotation)
    if shape is None:
        shape = _cache[annotation] = _make(annotation)
    return shape


def _make(annotation: Any) -> Shape:
    if isinstance(annotation, type) and issubclass(annotation, QEnum):
        values = [member.value for member in annotation]
        info = annotation.__dict__.get("__qapi__", TypeInfo(annotation.__name__))
        return EnumShape(info.name, annotation, lambda: values, None)
    if isinstance(annotation, type) and "__qapi__" in annotation.__dict__:
        return ObjectShape(annotation)
    if typing.get_origin(annotation) is list:
        return ArrayShape(shape_of(typing.get_args(annotation)[0]))
    for mark in getattr(annotation, "__metadata__", ()):
        if isinstance(mark, Builtin):
            return BuiltinShape(mark.name, "int")
        if isinstance(mark, Alternate):
            return AlternateShape(mark)
        if isinstance(mark, OpenEnum):
            return _open_enum(mark)
    raise TypeError(f"not a type of the schema: {annotation!r}")


def _open_enum(mark: OpenEnum) -> EnumShape:
    def values() -> list[str]:
        source = _sources.get(mark.source)
        return list(dict.fromkeys([*mark.fixed, *(source.names() if source else ())]))

    return EnumShape(mark.name, None, values, mark.source)


def attribute_types(cls: type) -> dict[str, Any]:
    """The evaluated annotations of a declared class's own attributes.

    :raises BlockyardError: if one names something that its module does not have.
    """
    module = sys.modules.get(cls.__module__)
    scope = vars(module) if module else {}
    found = {}
    annotations = cls.__dict__.get("__annotations__", {})  # noqa: RUF063  inspect costs start-up
    for name, annotation in annotations.items():
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, scope)  # noqa: S307  our own source text
            except NameError as error:
                raise BlockyardError(f"{cls.__qualname__}.{name}: {error}") from error
        found[name] = annotation
    return found


def _own_members(cls: type) -> dict[str, MemberShape]:
    info: TypeInfo = cls.__dict__["__qapi__"]
    types_ = attribute_types(cls)
    found = {}
    for attribute, default in info.own.items():
        if isinstance(default, Branches):
            continue
        spec = default if isinstance(default, Member) else Member(default)
        annotation, nullable = _without_none(types_[attribute])
        optional = not spec.unsaid and (nullable or spec.default is not REQUIRED)
        name = spec.name or _spell(attribute, info.dashes)
        found[attribute] = MemberShape(attribute, name, annotation, optional, spec)
    return found


def _spell(attribute: str, dashes: bool) -> str:
    name = attribute.rstrip("_")
    return name.replace("_", "-") if dashes else name


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation, False
    rest = [arg for arg in typing.get_args(annotation) if arg is not types.NoneType]
    if len(rest) != 1:
        raise TypeError(f"a choice of types must be an alternate: {annotation!r}")
    return rest[0], True


def _json_type(shape: Shape) -> str:
    if isinstance(shape, BuiltinShape):
        return "number" if shape.json == "int" else shape.json
    if isinstance(shape, EnumShape):
        return "string"
    return "array" if isinstance(shape, ArrayShape) else "object"
