# SPDX-License-Identifier: Apache-2.0
"""What query-qmp-schema answers (QAPI's introspect module)."""

from __future__ import annotations

from typing import Any

from blockyard.schema.declare import QEnum, branches, enum, member, struct, union

__all__ = [
    "JSONType",
    "SchemaInfo",
    "SchemaInfoAlternate",
    "SchemaInfoAlternateMember",
    "SchemaInfoArray",
    "SchemaInfoBuiltin",
    "SchemaInfoCommand",
    "SchemaInfoEnum",
    "SchemaInfoEnumMember",
    "SchemaInfoEvent",
    "SchemaInfoObject",
    "SchemaInfoObjectMember",
    "SchemaInfoObjectVariant",
    "SchemaMetaType",
]


@enum
class SchemaMetaType(QEnum):
    """Kinds of thing that the schema describes."""

    BUILTIN = "builtin"
    ENUM = "enum"
    ARRAY = "array"
    OBJECT = "object"
    ALTERNATE = "alternate"
    COMMAND = "command"
    EVENT = "event"


@enum
class JSONType(QEnum):
    """JSON's types; ``int`` is a number without a fraction, ``value`` anything."""

    STRING = "string"
    NUMBER = "number"
    INT = "int"
    BOOLEAN = "boolean"
    NULL = "null"
    OBJECT = "object"
    ARRAY = "array"
    VALUE = "value"


@struct
class SchemaInfoBuiltin:
    """A built-in type.

    json-type: its JSON type.
    """

    json_type: JSONType


@struct
class SchemaInfoEnumMember:
    """A value of an enum.

    name: the value.
    features: its features.
    """

    name: str
    features: list[str] | None = None


@struct
class SchemaInfoEnum:
    """An enum.

    members: its values.
    values: their names; look at members instead.
    """

    members: list[SchemaInfoEnumMember]
    values: list[str] = member(features=("deprecated",))


@struct
class SchemaInfoArray:
    """An array.

    element-type: its elements' type.
    """

    element_type: str


@struct
class SchemaInfoObjectMember:
    """A member of an object.

    name: its name.
    type: its type's name.
    default: the value when absent; null is no default; the member is optional if this is there.
    features: its features.
    """

    name: str
    type: str
    default: Any | None = None
    features: list[str] | None = None


@struct
class SchemaInfoObjectVariant:
    """A branch of a union.

    case: the tag's value.
    type: the object type that has the further members.
    """

    case: str
    type: str


@struct
class SchemaInfoObject:
    """An object type.

    members: its members.
    tag: the member that selects a branch.
    variants: the branches.
    """

    members: list[SchemaInfoObjectMember]
    tag: str | None = None
    variants: list[SchemaInfoObjectVariant] | None = None


@struct
class SchemaInfoAlternateMember:
    """A branch of an alternate.

    type: its type's name.
    """

    type: str


@struct
class SchemaInfoAlternate:
    """An alternate.

    members: its branches.
    """

    members: list[SchemaInfoAlternateMember]


@struct
class SchemaInfoCommand:
    """A command.

    arg-type: the type of its arguments.
    ret-type: the type of its answer.
    allow-oob: it may be executed out of band (false).
    """

    arg_type: str
    ret_type: str
    allow_oob: bool | None = None


@struct
class SchemaInfoEvent:
    """An event.

    arg-type: the type of its data.
    """

    arg_type: str


@union("meta_type")
class SchemaInfo:
    """A thing that the schema describes.

    name: its name; of types a number.
    meta-type: what kind of thing it is.
    features: its features.
    """

    name: str
    meta_type: SchemaMetaType
    features: list[str] | None = None
    u: Any = branches(
        fixed={
            "builtin": SchemaInfoBuiltin,
            "enum": SchemaInfoEnum,
            "array": SchemaInfoArray,
            "object": SchemaInfoObject,
            "alternate": SchemaInfoAlternate,
            "command": SchemaInfoCommand,
            "event": SchemaInfoEvent,
        }
    )
