# SPDX-License-Identifier: Apache-2.0
"""The chardevs of a yard, by label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.errors import BlockyardError, InvalidOption, NotFound
from blockyard.plugins import implementation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockyard.chardev.base import Chardev, ChardevType
    from blockyard.plugins import Registry
    from blockyard.yard import Yard

__all__ = ["Chardevs", "chardevs_of"]


class Chardevs:
    """Makes, finds and removes chardevs."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._chardevs: dict[str, Chardev] = {}

    def __iter__(self) -> Iterator[Chardev]:
        return iter(list(self._chardevs.values()))

    def kind(self, name: str) -> ChardevType:
        """The declaration of a kind.

        :raises InvalidOption: if there is no such kind here.
        """
        if not self._registry.has("chardevs", name):
            raise InvalidOption(f"'{name}' is not a valid char driver name")
        found: ChardevType = self._registry.find("chardevs", name)
        return found

    def find(self, label: str) -> Chardev | None:
        """The chardev of that label, or None."""
        return self._chardevs.get(label)

    def get(self, label: str) -> Chardev:
        """The chardev of that label.

        :raises NotFound: if there is none.
        """
        found = self._chardevs.get(label)
        if found is None:
            raise NotFound(f"Chardev '{label}' not found")
        return found

    async def add(self, label: str, kind: str, options: Any, *, wait: bool = False) -> Chardev:
        """Make a chardev of the visited ``data`` of its kind; see :meth:`Chardev.start`.

        :raises BlockyardError: with QEMU's text; nothing is left behind.
        """
        made: Chardev = implementation(self.kind(kind))(label, options)
        await made.start(wait=wait)
        if label in self._chardevs:
            await made.stop()
            raise InvalidOption(
                f"attempt to add duplicate property '{label}' to object (type 'container')"
            )
        self._chardevs[label] = made
        return made

    async def change(self, label: str, kind: str, options: Any) -> Chardev:
        """Put another chardev in the place of one that nobody uses.

        :raises NotFound: if there is none of that label.
        :raises BlockyardError: if it is in use, or the new one cannot be made; the old one stays.
        """
        old = self._chardevs.get(label)
        if old is None:
            raise NotFound(f"Chardev '{label}' does not exist")
        if old.user is not None:
            raise BlockyardError("Chardev user does not support chardev hotswap")
        made: Chardev = implementation(self.kind(kind))(label, options)
        await made.start(wait=False)
        self._chardevs[label] = made
        await old.stop()
        return made

    async def remove(self, label: str) -> None:
        """Close a chardev.

        :raises NotFound: if there is none of that label.
        :raises BlockyardError: if it is in use.
        """
        if self.get(label).user is not None:
            raise BlockyardError(f"Chardev '{label}' is busy")
        await self._chardevs.pop(label).stop()

    async def close(self) -> None:
        """Close all, the youngest first."""
        for chardev in list(self)[::-1]:
            del self._chardevs[chardev.label]
            await chardev.stop()


def chardevs_of(yard: Yard) -> Chardevs:
    """The chardevs of a yard, which has them from when somebody first asks."""
    found = yard.extra.get("chardevs")
    if found is None:
        found = yard.extra["chardevs"] = Chardevs(yard.registry)
    assert isinstance(found, Chardevs)
    return found
