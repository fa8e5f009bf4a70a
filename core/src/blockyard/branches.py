# SPDX-License-Identifier: Apache-2.0
"""Installed plugins as the branches of the schema's open unions.

BlockdevOptions and its like have one branch for each driver, export type... that is
installed.  The schema asks here, and here the registry is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard.errors import UnknownPlugin
from blockyard.schema.declare import wrapper
from blockyard.schema.shape import provide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from blockyard.plugins import Registry

__all__ = ["provide_branches"]

_BLOCK_KINDS = ("drivers", "formats", "filters")


def provide_branches(registry: Registry) -> None:
    """Let ``registry`` say from now on which branches the open unions have."""
    for union, kinds, attribute in (
        ("BlockdevOptions", _BLOCK_KINDS, "options"),
        ("BlockdevCreateOptions", _BLOCK_KINDS, "create_options"),
        ("BlockdevAmendOptions", _BLOCK_KINDS, "amend_options"),
        ("BlockStatsSpecific", _BLOCK_KINDS, "statistics_type"),
        ("BlockExportOptions", ("exports",), "options"),
        ("ObjectOptions", ("objects",), "options"),
    ):
        provide(union, _Source(registry, kinds, attribute))
    provide("ImageInfoSpecific", _WrappedSource(registry, _BLOCK_KINDS, "image_info_type"))


@attrs.frozen(eq=False, repr=False)
class _Source:
    """The branches that one attribute of the declarations of some kinds gives."""

    registry: Any
    kinds: tuple[str, ...]
    attribute: str

    def names(self) -> Iterable[str]:
        return self.registry.names(*self.kinds)  # type: ignore[no-any-return]

    def options(self, name: str) -> type | None:
        return getattr(self._declaration(name), self.attribute, None)

    def hint(self, name: str) -> str:
        """What the registry's refusal says after its first clause."""
        try:
            self._declaration(name)
        except UnknownPlugin as error:
            _, semicolon, advice = str(error).partition(";")
            return semicolon + advice
        return ""

    def _declaration(self, name: str) -> Any:
        find: Callable[..., Any] = self.registry.find
        if self.kinds == _BLOCK_KINDS:
            return self.registry.driver(name)
        return find(self.kinds[0], name)


class _WrappedSource(_Source):
    """Branches that hold their struct in ``data``, of the drivers that have one."""

    def names(self) -> Iterable[str]:
        return [name for name in super().names() if self._has_one(name)]

    def options(self, name: str) -> type | None:
        found = super().options(name)
        return wrapper(found) if found is not None else None

    def _has_one(self, name: str) -> bool:
        try:
            return super().options(name) is not None
        except UnknownPlugin:
            return False
