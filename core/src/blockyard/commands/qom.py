# SPDX-License-Identifier: Apache-2.0
"""qom-list, qom-get, qom-list-get and qom-set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.commands.qomtree import Place, places, resolve
from blockyard.errors import BlockyardError, DeviceNotFound, InvalidOption
from blockyard.qmp.command import command
from blockyard.schema.declare import struct
from blockyard.schema.qom import (
    ObjectPropertiesValues,
    ObjectPropertyInfo,
    ObjectPropertyValue,
)
from blockyard.schema.structure import dump
from blockyard.schema.visitor import check

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["qom_get", "qom_list", "qom_list_get", "qom_set"]

_TYPES = {"int": int, "bool": bool, "string": str}


@struct
class QomListArguments:
    """What qom-list takes.

    path: the object's path.
    """

    path: str


@struct
class QomListGetArguments:
    """What qom-list-get takes.

    paths: the objects' paths.
    """

    paths: list[str]


@struct
class QomGetArguments:
    """What qom-get takes.

    path: the object's path.
    property: the property.
    """

    path: str
    property: str


@struct
class QomSetArguments(QomGetArguments):
    """What qom-set takes.

    value: the new value.
    """

    value: Any


@command("qom-list", args=QomListArguments, returns=list[ObjectPropertyInfo])
async def qom_list(yard: Yard, args: QomListArguments) -> list[ObjectPropertyInfo]:
    """The properties of an object."""
    place = resolve(places(yard), args.path)
    return [
        ObjectPropertyInfo(name=name, type=each.type) for name, each in place.properties.items()
    ]


@command("qom-get", args=QomGetArguments, returns=Any)
async def qom_get(yard: Yard, args: QomGetArguments) -> Any:
    """The value of a property."""
    return dump(_resolve_one(yard, args.path).find(args.property).get())


@command("qom-list-get", args=QomListGetArguments, returns=list[ObjectPropertiesValues])
async def qom_list_get(yard: Yard, args: QomListGetArguments) -> list[ObjectPropertiesValues]:
    """The properties of several objects, with values."""
    root = places(yard)
    return [ObjectPropertiesValues(properties=_values(resolve(root, p))) for p in args.paths]


@command("qom-set", args=QomSetArguments)
async def qom_set(yard: Yard, args: QomSetArguments) -> None:
    """Change a property."""
    place = _resolve_one(yard, args.path)
    found = place.find(args.property)
    if found.set is None:
        raise InvalidOption(f"Property '{place.type}.{args.property}' is not writable")
    if found.type in _TYPES:
        check(_TYPES[found.type], args.value, name=args.property)
    found.set(args.value)


def _resolve_one(yard: Yard, path: str) -> Place:
    # To these two QEMU says of every path that it is not found, be it ambiguous.
    try:
        return resolve(places(yard), path)
    except InvalidOption:
        raise DeviceNotFound(f"Device '{path}' not found") from None


def _values(place: Place) -> list[ObjectPropertyValue]:
    found = []
    for name, each in place.properties.items():
        try:
            value = dump(each.get())
        except BlockyardError:
            # qom-list-get leaves out what cannot be read.
            value = None
        found.append(ObjectPropertyValue(name=name, type=each.type, value=value))
    return found
