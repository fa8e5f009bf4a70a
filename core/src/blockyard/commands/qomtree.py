# SPDX-License-Identifier: Apache-2.0
"""The tree that qom paths walk: containers, objects and chardevs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard.chardev.registry import chardevs_of
from blockyard.errors import DeviceNotFound, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blockyard.yard import Yard

__all__ = ["Place", "QomProperty", "places", "resolve"]


@attrs.frozen
class QomProperty:
    """A property: its QAPI type, how to read it and, if it may be, how to set it."""

    type: str
    get: Callable[[], Any]
    set: Callable[[Any], None] | None = None
    description: str | None = None


@attrs.frozen
class Place:
    """What stands at a path."""

    path: str
    type: str
    properties: dict[str, QomProperty]
    children: dict[str, Place] = attrs.field(factory=dict)

    def find(self, name: str) -> QomProperty:
        """A property by name.

        :raises InvalidOption: if there is none.
        """
        if name not in self.properties:
            raise InvalidOption(f"Property '{self.type}.{name}' not found")
        return self.properties[name]


def places(yard: Yard) -> Place:
    """The tree as it is now, from the root."""
    objects = [
        (each.id, each.type.name, _object_properties(each.properties())) for each in yard.objects
    ]
    chardevs = [
        (each.label, f"chardev-{each.type.name}", _chardev_properties(each.properties()))
        for each in chardevs_of(yard)
    ]
    return _container(
        "",
        {
            "backend": _container("/backend", {}),
            "objects": _container("/objects", _leaves("/objects", objects)),
            "chardevs": _container("/chardevs", _leaves("/chardevs", chardevs)),
        },
    )


def resolve(root: Place, path: str) -> Place:
    """The place at an absolute path, or the only one whose path ends like a partial one.

    :raises DeviceNotFound: if there is none.
    :raises InvalidOption: if there are several.
    """
    parts = [part for part in path.split("/") if part]
    starts = [root] if path.startswith("/") else list(_walk(root))
    found = [place for place in (_descend(start, parts) for start in starts) if place]
    if not found:
        raise DeviceNotFound(f"Device '{path}' not found")
    if len(found) > 1:
        raise InvalidOption(f"Path '{path}' is ambiguous")
    return found[0]


def _walk(place: Place) -> Iterator[Place]:
    yield place
    for child in place.children.values():
        yield from _walk(child)


def _descend(place: Place, parts: list[str]) -> Place | None:
    for part in parts:
        child = place.children.get(part)
        if child is None:
            return None
        place = child
    return place


def _container(path: str, children: dict[str, Place]) -> Place:
    links = {
        name: QomProperty(f"child<{child.type}>", lambda child=child: child.path)  # type: ignore[misc]
        for name, child in children.items()
    }
    return Place(path or "/", "container", {**_type("container"), **links}, children)


def _leaves(folder: str, found: list[tuple[str, str, dict[str, QomProperty]]]) -> dict[str, Place]:
    return {
        name: Place(f"{folder}/{name}", kind, {**_type(kind), **properties})
        for name, kind, properties in found
    }


def _type(name: str) -> dict[str, QomProperty]:
    return {"type": QomProperty("string", lambda: name)}


def _object_properties(found: dict[str, Any]) -> dict[str, QomProperty]:
    return {
        name: QomProperty(each.type, each.get, each.set, each.description)
        for name, each in found.items()
    }


def _chardev_properties(
    found: dict[str, tuple[str, Callable[[], Any]]],
) -> dict[str, QomProperty]:
    return {name: QomProperty(kind, get) for name, (kind, get) in found.items()}
