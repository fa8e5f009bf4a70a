# SPDX-License-Identifier: Apache-2.0
"""Declaring the types of the QMP interface.

A struct is written as an ordinary class; its QAPI name is the class's name and
its members' names are the attributes' with dashes for underscores::

    @struct
    class BlockdevOptionsNull:
        \"\"\"Options of the null drivers.\"\"\"

        size: int | None = None
        latency_ns: Uint64 | None = None

Declaring costs next to nothing: annotations are read, and the class is made an
attrs class, when the first instance is built or the first value visited.  Base
classes that are structs too contribute their members first, as QAPI's ``base``.
"""

from __future__ import annotations

import enum as _enum
import threading
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, dataclass_transform, overload

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "NULL",
    "REQUIRED",
    "Alternate",
    "Branches",
    "Builtin",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "Member",
    "Null",
    "OpenEnum",
    "QEnum",
    "Size",
    "TypeInfo",
    "Uint8",
    "Uint16",
    "Uint32",
    "Uint64",
    "alternate",
    "branches",
    "enum",
    "member",
    "open_enum",
    "struct",
    "union",
    "wrapper",
]

_T = TypeVar("_T")


class Null(_enum.Enum):
    """JSON's null where it is a value of its own, as ``backing: null``; None means absent."""

    NULL = None

    def __repr__(self) -> str:
        return "NULL"


#: The one value of :class:`Null`.
NULL: Final = Null.NULL

#: The default of a member that must be given.
REQUIRED: Final = attrs.NOTHING


@attrs.define(eq=False, repr=False, slots=False)
class Builtin:
    """A QAPI built-in: ``name`` as QAPI spells it (``uint16``, ``size``)."""

    name: str


Int8 = Annotated[int, Builtin("int8")]
Int16 = Annotated[int, Builtin("int16")]
Int32 = Annotated[int, Builtin("int32")]
Int64 = Annotated[int, Builtin("int64")]
Uint8 = Annotated[int, Builtin("uint8")]
Uint16 = Annotated[int, Builtin("uint16")]
Uint32 = Annotated[int, Builtin("uint32")]
Uint64 = Annotated[int, Builtin("uint64")]
#: Bytes; on the command line with a suffix, ``64k`` or ``1.5G``.
Size = Annotated[int, Builtin("size")]


@attrs.define(eq=False, repr=False, slots=False)
class Alternate:
    """A type whose branch the JSON type of the value selects; made by :func:`alternate`."""

    name: str
    #: Called on first use, so that branches may be declared later; branch name -> type.
    resolve: Callable[[], Mapping[str, Any]]


def alternate(name: str, resolve: Callable[[], Mapping[str, Any]]) -> Alternate:
    """Mark an annotation as the QAPI alternate ``name``.

    ``StrOrNull = Annotated[str | Null, alternate("StrOrNull", lambda: {"s": str, "n": Null})]``
    In memory the value is that of the branch itself.
    """
    return Alternate(name, resolve)


@attrs.define(eq=False, repr=False, slots=False)
class OpenEnum:
    """An enum whose values are the branches of the registry's union ``source``."""

    name: str
    source: str
    fixed: tuple[str, ...] = ()


def open_enum(name: str, source: str, fixed: tuple[str, ...] = ()) -> OpenEnum:
    """Mark a ``str`` annotation as the enum ``name`` whose values the registry knows.

    The values ``fixed`` are there whatever it knows.
    """
    return OpenEnum(name, source, fixed)


class QEnum(_enum.StrEnum):
    """A QAPI enum; the values are the QAPI spellings, and compare equal to them."""


@attrs.define(eq=False, repr=False, slots=False)
class Member:
    """What :func:`member` says of a member beyond its annotation and default."""

    default: Any = REQUIRED
    name: str | None = None
    features: tuple[str, ...] = ()
    doc: str = ""
    unsaid: bool = False


@attrs.define(eq=False, repr=False, slots=False)
class Branches:
    """Where a union's branches come from; made by :func:`branches`."""

    fixed: Mapping[str, type | None]
    source: str | None = None


@attrs.define(eq=False, repr=False, slots=False)
class TypeInfo:
    """What is kept of a declaration, in the class's ``__qapi__``."""

    name: str
    features: tuple[str, ...] = ()
    #: Whether underscores of attributes are dashes in QAPI.
    dashes: bool = True
    #: Struct: attribute -> default, :class:`Member` or REQUIRED, in source order.
    own: Mapping[str, Any] = {}
    #: Union: the attribute that selects the branch.
    tag: str | None = None
    branches: Branches | None = None
    #: Enum: value -> its features.
    value_features: Mapping[str, tuple[str, ...]] = {}


def member(
    *,
    default: Any = REQUIRED,
    name: str | None = None,
    features: tuple[str, ...] = (),
    doc: str = "",
    unsaid: bool = False,
) -> Any:
    """Describe a member beyond its annotation.

    That is its default, its QAPI ``name`` where dashes do not give it, its ``features``
    (``deprecated``, ``unstable``...) and its help text.  ``unsaid``: QMP wants it, but the
    older options of names and command lines may lack it; it is its default then, and
    selects, if it is a union's tag, the first branch.
    """
    return Member(default, name, features, doc, unsaid)


def branches(*, source: str | None = None, fixed: Mapping[str, type | None] | None = None) -> Any:
    """The branches of a union, for its attribute ``u``.

    ``fixed`` maps tag values to structs (None: no members); ``source`` names the registry's
    callback (see :func:`~blockyard.schema.shape.provide`), asked for what is not fixed.
    """
    return Branches(dict(fixed or {}), source)


_realising = threading.RLock()


class _Deferred:
    """Stands for ``__attrs_attrs__`` until somebody looks: then attrs sees the class."""

    def __get__(self, instance: object, owner: type) -> Any:
        _realise(owner)
        return owner.__dict__["__attrs_attrs__"]


def _first_init(self: Any, /, *args: Any, **kwargs: Any) -> None:
    _realise(type(self))
    type(self).__init__(self, *args, **kwargs)


def _repr(self: Any) -> str:
    values = ", ".join(f"{a.name}={getattr(self, a.name)!r}" for a in attrs.fields(type(self)))
    return f"{type(self).__qualname__}({values})"


def _eq(self: Any, other: Any) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    names = [a.name for a in attrs.fields(type(self))]
    return [getattr(self, n) for n in names] == [getattr(other, n) for n in names]


def _realise(cls: type) -> None:
    """Make ``cls`` an attrs class, once."""
    from blockyard.schema.shape import attribute_types

    with _realising:
        if not isinstance(cls.__dict__.get("__attrs_attrs__"), _Deferred):
            return
        cls.__annotations__ = attribute_types(cls)
        del cls.__attrs_attrs__, cls.__init__  # type: ignore[attr-defined,misc]
        # attrs would write and compile repr and eq for each class anew.
        attrs.define(cls, these=_fields(cls), slots=False, kw_only=True, repr=False, eq=False)


def _fields(cls: type) -> dict[str, Any]:
    fields = {}
    for attribute, default in cls.__qapi__.own.items():  # type: ignore[attr-defined]
        if isinstance(default, Member):
            default = default.default
        elif isinstance(default, Branches):
            default = None
        fields[attribute] = attrs.field(default=default)
    return fields


def _declare(cls: type[_T], info: TypeInfo) -> type[_T]:
    cls.__qapi__ = info  # type: ignore[attr-defined]
    cls.__attrs_attrs__ = _Deferred()  # type: ignore[attr-defined]
    cls.__init__ = _first_init  # type: ignore[assignment]
    cls.__repr__ = _repr  # type: ignore[method-assign]
    cls.__eq__ = _eq  # type: ignore[method-assign]
    cls.__hash__ = None  # type: ignore[assignment]
    return cls


def _own(cls: type) -> dict[str, Any]:
    names = cls.__dict__.get("__annotations__", {})  # noqa: RUF063  inspect costs start-up
    return {name: cls.__dict__.get(name, REQUIRED) for name in names}


@overload
def struct(cls: type[_T], /) -> type[_T]: ...


@overload
def struct(
    *, name: str | None = None, features: tuple[str, ...] = (), dashes: bool = True
) -> Callable[[type[_T]], type[_T]]: ...


@dataclass_transform(kw_only_default=True, field_specifiers=(member,))
def struct(
    cls: type[_T] | None = None,
    /,
    *,
    name: str | None = None,
    features: tuple[str, ...] = (),
    dashes: bool = True,
) -> Any:
    """Declare a QAPI struct; a member is optional when ``None`` or a default is allowed.

    ``dashes=False`` keeps the attributes' underscores, as QAPI's oldest types have them.
    """

    def decorate(cls: type[_T]) -> type[_T]:
        info = TypeInfo(name or cls.__name__, tuple(features), dashes, _own(cls))
        return _declare(cls, info)

    return decorate if cls is None else decorate(cls)


@dataclass_transform(kw_only_default=True, field_specifiers=(member, branches))
def union(
    tag: str, *, name: str | None = None, features: tuple[str, ...] = ()
) -> Callable[[type[_T]], type[_T]]:
    """Declare a QAPI union on the attribute ``tag``; its ``u`` is made by :func:`branches`.

    The value of ``u`` is the branch's struct, or None for a branch without members.
    """

    def decorate(cls: type[_T]) -> type[_T]:
        info = TypeInfo(
            name or cls.__name__, tuple(features), True, _own(cls), tag, cls.__dict__["u"]
        )
        return _declare(cls, info)

    return decorate


@cache
def wrapper(cls: type) -> type:
    """The struct whose one member ``data`` is a ``cls``, as QAPI's older unions have it."""
    body = {
        "__annotations__": {"data": cls},
        "__doc__": f"The ``data`` of a {cls.__name__}.",
        "__module__": cls.__module__,
    }
    return struct(type(f"{cls.__name__}Wrapper", (), body))


_E = TypeVar("_E", bound=type[QEnum])


@overload
def enum(cls: _E, /) -> _E: ...


@overload
def enum(
    *,
    name: str | None = None,
    features: tuple[str, ...] = (),
    value_features: Mapping[str, tuple[str, ...]] | None = None,
) -> Callable[[_E], _E]: ...


def enum(
    cls: _E | None = None,
    /,
    *,
    name: str | None = None,
    features: tuple[str, ...] = (),
    value_features: Mapping[str, tuple[str, ...]] | None = None,
) -> Any:
    """Declare a QAPI enum, a subclass of :class:`QEnum`."""

    def decorate(cls: _E) -> _E:
        cls.__qapi__ = TypeInfo(  # type: ignore[attr-defined]
            name or cls.__name__, tuple(features), value_features=dict(value_features or {})
        )
        return cls

    return decorate if cls is None else decorate(cls)
