# SPDX-License-Identifier: Apache-2.0
"""Objects: what object-add makes (iothreads, monitors, secrets...), by id.

Users know them by id; the qom commands by path, ``/objects/ID``, with properties.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from blockyard.entrypoints import implementation
from blockyard.errors import Busy, InvalidOption, NotFound, Unsupported
from blockyard.identifier import identifier_ok

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blockyard.yard import Yard

__all__ = ["Object", "ObjectType", "Objects", "Property"]


@attrs.frozen(eq=False, repr=False, kw_only=True)
class ObjectType:
    """The declaration of an object type: cheap to import, found by entry point."""

    #: The name in QMP, ``"iothread"``.
    name: str
    #: The schema's struct for this branch of ObjectOptions.
    options: type | None
    implementation: str | type[Object]
    #: The QOM type that it derives from.
    parent: str = "object"


@attrs.frozen(eq=False, repr=False, kw_only=True)
class Property:
    """A property of an object, as qom-list and qom-get show it."""

    #: QAPI's type, ``"int"``.
    type: str
    get: Callable[[], Any]
    #: None when it is read-only.
    set: Callable[[Any], None] | None = None
    description: str | None = None


class Object(abc.ABC):
    """One object."""

    type: ClassVar[ObjectType]

    def __init__(self, yard: Yard, object_id: str, options: Any) -> None:
        """``options``: the branch struct of the visited ObjectOptions."""
        self.yard = yard
        self.id = object_id
        self.options = options

    @abc.abstractmethod
    async def start(self) -> None:
        """Make it work.  A failed start leaves nothing behind.

        :raises BlockyardError: with QEMU's text.
        """

    @abc.abstractmethod
    async def stop(self) -> None:
        """Release everything."""

    def in_use(self) -> bool:
        """Whether something depends on it, so that it must not be deleted."""
        return False

    def in_use_error(self) -> str:
        """What to tell whoever wants to delete it while it is in use."""
        return f"object '{self.id}' is in use, can not be deleted"

    def properties(self) -> dict[str, Property]:
        """Its properties by name, ``type`` left out."""
        return {}

    async def suspend(self) -> dict[str, Any]:
        """The object as plain data with a version, and descriptors.

        :raises Unsupported: naming it; the default.
        """
        raise Unsupported(f"object '{self.id}' does not support suspending")


class Objects:
    """The objects of a yard, the oldest first."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._objects: dict[str, Object] = {}
        self._types: dict[str, ObjectType] = {}

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self._objects.values()))

    def find(self, object_id: str) -> Object | None:
        """The object of that id, or None."""
        return self._objects.get(object_id)

    def get(self, object_id: str) -> Object:
        """The object of that id.

        :raises NotFound: if there is none.
        """
        if object_id not in self._objects:
            raise NotFound(f"object '{object_id}' not found")
        return self._objects[object_id]

    def type_of(self, found: Object) -> ObjectType:
        """The declaration that the object was made from."""
        return self._types[found.id]

    def resolve(self, path: str) -> Object | None:
        """The object at a QOM path, ``/objects/ID`` or ``ID`` alone, or None."""
        return self._objects.get(path.removeprefix("/objects/"))

    async def add(self, options: Any) -> Object:
        """object-add, of visited ObjectOptions.

        :raises InvalidOption: if the id is malformed or taken.
        :raises BlockyardError: whatever the object itself refuses.
        """
        if not identifier_ok(options.id):
            raise InvalidOption("Parameter 'id' expects an identifier")
        declaration: ObjectType = self._yard.registry.find("objects", options.qom_type)
        if options.id in self._objects:
            raise InvalidOption(
                f"attempt to add duplicate property '{options.id}' to object (type 'container')"
            )
        made: Object = implementation(declaration)(self._yard, options.id, options.u)
        await made.start()
        self._types[made.id] = declaration
        self._objects[made.id] = made
        return made

    async def delete(self, object_id: str) -> None:
        """object-del.

        :raises NotFound: if there is none.
        :raises Busy: if something depends on it.
        """
        found = self.get(object_id)
        if found.in_use():
            raise Busy(found.in_use_error())
        await self._end(found)

    async def close(self) -> None:
        """End all objects, the youngest first; nothing uses them any more."""
        for found in list(self)[::-1]:
            await self._end(found)

    async def _end(self, found: Object) -> None:
        del self._objects[found.id]
        del self._types[found.id]
        await found.stop()
