# SPDX-License-Identifier: Apache-2.0
"""qom-list-types and qom-list-properties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard.errors import DeviceNotFound
from blockyard.plugins import implementation
from blockyard.qmp.command import command
from blockyard.schema.declare import struct
from blockyard.schema.qom import ObjectPropertyInfo, ObjectTypeInfo

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["qom_list_properties", "qom_list_types"]


@struct
class QomListTypesArguments:
    """What qom-list-types takes.

    implements: only types that are or derive from this one.
    abstract: types of which there can be no object as well (false).
    """

    implements: str | None = None
    abstract: bool | None = None


@struct
class QomListPropertiesArguments:
    """What qom-list-properties takes.

    typename: the type.
    """

    typename: str


@attrs.frozen
class _Type:
    parent: str | None
    abstract: bool = False
    creatable: bool = False
    #: The declaration of an object type or a chardev.
    declaration: Any = None


#: What there is besides user-creatable objects and chardevs.
_FRAME = {
    "object": _Type(None, abstract=True),
    "container": _Type("object"),
    "event-loop-base": _Type("object", abstract=True),
    "monitor": _Type("object", abstract=True),
    "chardev": _Type("object", abstract=True),
    "chardev-fd": _Type("chardev", abstract=True),
}


@command("qom-list-types", args=QomListTypesArguments, returns=list[ObjectTypeInfo])
async def qom_list_types(yard: Yard, args: QomListTypesArguments) -> list[ObjectTypeInfo]:
    """The types of object there are."""
    known = _types(yard)
    return [
        ObjectTypeInfo(name=name, parent=each.parent, abstract=True if each.abstract else None)
        for name, each in known.items()
        if (args.abstract or not each.abstract) and _implements(known, name, args.implements)
    ]


@command("qom-list-properties", args=QomListPropertiesArguments, returns=list[ObjectPropertyInfo])
async def qom_list_properties(
    yard: Yard, args: QomListPropertiesArguments
) -> list[ObjectPropertyInfo]:
    """The properties that objects of a type have."""
    known = _types(yard)
    if args.typename not in known:
        raise DeviceNotFound(f"Class '{args.typename}' not found")
    found = [ObjectPropertyInfo(name="type", type="string")]
    for name, kind in _properties(known[args.typename]):
        found.append(ObjectPropertyInfo(name=name, type=kind))
    return found


def _types(yard: Yard) -> dict[str, _Type]:
    objects = {
        name: _Type(each.parent, creatable=True, declaration=each)
        for name, each in yard.registry.every("objects")
    }
    chardevs = {
        f"chardev-{name}": _Type(each.parent, declaration=each)
        for name, each in yard.registry.every("chardevs")
    }
    return {**_FRAME, **objects, **chardevs}


def _implements(known: dict[str, _Type], name: str, wanted: str | None) -> bool:
    if wanted is None:
        return True
    if wanted == "user-creatable":
        return known[name].creatable
    step: str | None = name
    while step is not None:
        if step == wanted:
            return True
        step = known[step].parent if step in known else None
    return False


def _properties(found: _Type) -> list[tuple[str, str]]:
    if found.declaration is None:
        return []
    if not found.creatable:
        qom: Any = getattr(implementation(found.declaration), "qom", ())
        return list(qom)
    return _members(found.declaration.options) if found.declaration.options else []


def _members(options: type) -> list[tuple[str, str]]:
    """An object's options are its properties."""
    from blockyard.schema.shape import BuiltinShape, ObjectShape, shape_of

    shape = shape_of(options)
    assert isinstance(shape, ObjectShape)
    return [
        (
            member.name,
            _spelling(member.shape.json, member.shape.name)
            if isinstance(member.shape, BuiltinShape)
            else member.shape.name,
        )
        for member in shape.members
    ]


def _spelling(json: str, name: str) -> str:
    """QOM's name of a built-in."""
    return {"boolean": "bool", "string": "string", "int": "int"}.get(json, name)
