# SPDX-License-Identifier: Apache-2.0
"""Objects: what object-add takes and the qom commands tell."""

from __future__ import annotations

from typing import Annotated, Any

from blockyard.schema.declare import branches, open_enum, struct, union

__all__ = [
    "EventLoopBaseProperties",
    "IothreadProperties",
    "MainLoopProperties",
    "ObjectOptions",
    "ObjectPropertiesValues",
    "ObjectPropertyInfo",
    "ObjectPropertyValue",
    "ObjectType",
    "ObjectTypeInfo",
]

#: An object type's name; which there are depends on the packages installed.
ObjectType = Annotated[str, open_enum("ObjectType", "ObjectOptions")]


@union("qom_type")
class ObjectOptions:
    """An object.

    qom-type: its type.
    id: its name.
    """

    qom_type: ObjectType
    id: str
    u: Any = branches(source="ObjectOptions")


@struct
class EventLoopBaseProperties:
    """What every event loop has.

    aio-max-batch: most requests submitted at once; 0 is the engine's own choice (0).
    thread-pool-min: worker threads kept ready (0).
    thread-pool-max: worker threads at most (64).
    """

    aio_max_batch: int | None = None
    thread_pool_min: int | None = None
    thread_pool_max: int | None = None


@struct
class IothreadProperties(EventLoopBaseProperties):
    """An iothread.

    poll-max-ns: longest time to spin for events before sleeping, in nanoseconds; 0 is never.
    poll-grow: factor by which the spinning time grows; 0 is the default.
    poll-shrink: divisor by which it shrinks; 0 is the default.
    poll-weight: how much one event counts when the time is adapted; 0 is the default.
    """

    poll_max_ns: int | None = None
    poll_grow: int | None = None
    poll_shrink: int | None = None
    poll_weight: int | None = None


@struct
class MainLoopProperties(EventLoopBaseProperties):
    """The main loop."""


@struct
class ObjectPropertyInfo:
    """A property of an object or type.

    name: the property.
    type: its QAPI type, or ``child<T>`` or ``link<T>``.
    description: what it is for.
    default-value: its default.
    """

    name: str
    type: str
    description: str | None = None
    default_value: Any | None = None


@struct
class ObjectPropertyValue:
    """A property with its value.

    name: the property.
    type: its type, as in :class:`ObjectPropertyInfo`.
    value: the value; absent when it cannot be read.
    """

    name: str
    type: str
    value: Any | None = None


@struct
class ObjectPropertiesValues:
    """All properties of one object."""

    properties: list[ObjectPropertyValue]


@struct
class ObjectTypeInfo:
    """A type of object.

    name: the type.
    abstract: there can be no object of just this type; absent when there can.
    parent: the type it derives from.
    """

    name: str
    abstract: bool | None = None
    parent: str | None = None
