# SPDX-License-Identifier: Apache-2.0
"""The control half of ``copy-on-read``."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from blockyard.changes.topology import backing_below
from blockyard.errors import InvalidOption, NotFound
from blockyard.filterdriver import FilterDriver
from blockyard.node import Child, Node, Opened
from blockyard.permission import Perm
from blockyard_filters_copy_on_read.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CopyOnReadDriver"]


class CopyOnReadDriver(FilterDriver):
    """What is read from backing files is written into the image above them."""

    def __init__(self, options: Any, node: Node) -> None:
        super().__init__(options, node)
        self._state = ffi.NULL
        #: Edges of the chain down to the bottom, which stay while the node is there.
        self._kept: list[Child] = []

    async def open(self) -> Opened:
        """Find the bottom, if one is named.

        :raises NotFound: if there is no such node.
        :raises InvalidOption: if it is a filter, or not in the chain.
        """
        chain = self._chain()
        self._state = lib.by_cor_create()
        if self._state == ffi.NULL:
            raise MemoryError
        self._kept = _edges([self.node, *chain])
        for edge in self._kept:
            edge.frozen += 1
        self._configure()
        return Opened(
            ops=lib.by_cor_ops(),
            state=int(ffi.cast("uintptr_t", self._state)),
            length=self.shown.length,
            limits=self.shown_limits(),
        )

    async def before_close(self) -> None:
        """Let the chain be changed again."""
        self._thaw()

    def _thaw(self) -> None:
        for edge in self._kept:
            edge.frozen -= 1
        self._kept = []

    async def close(self) -> None:
        """Free the state."""
        self._thaw()
        lib.by_cor_free(self._state)
        self._state = ffi.NULL

    def child_changed(self, name: str) -> None:
        """Copy by the clusters, or subclusters, of whatever is shown now."""
        if self._state != ffi.NULL:
            self._configure()

    def _configure(self) -> None:
        layers = sum(node.type.kind != "filter" for node in self._chain())
        lib.by_cor_set(self._state, self.shown.allocation_unit or 1, layers)

    def _chain(self) -> list[Node]:
        """The nodes from the one that is shown down to the bottom; empty without one."""
        name = self.options.bottom
        if name is None:
            return []
        bottom = self.node.graph.nodes.get(name)
        if bottom is None:
            raise NotFound(f"Bottom node '{name}' not found")
        if bottom.type.kind == "filter":
            raise InvalidOption(f"Bottom node '{name}' is a filter")
        chain: list[Node] = []
        for node in _below(self.shown):
            chain.append(node)
            if node is bottom:
                return chain
        raise InvalidOption(f"Bottom node '{name}' is not in the chain of '{self.shown.name}'")

    def strong_options(self) -> dict[str, Any]:
        """None: the bottom changes what is copied, not what is shown."""
        return {}

    def reopen_supported(self) -> bool:
        """There is nothing to change."""
        return False

    def child_permissions(self, child: Child, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """What the users want, and to write what is there already."""
        wanted, offered = super().child_permissions(child, perm, shared)
        if self.node.active:
            wanted |= Perm.WRITE_UNCHANGED
        return wanted, offered | Perm.WRITE_UNCHANGED


def _below(node: Node) -> Iterator[Node]:
    yield node
    yield from backing_below(node)


def _edges(chain: list[Node]) -> list[Child]:
    """The edges between neighbours, where there is more than the top alone."""
    found = []
    for parent, node in itertools.pairwise(chain):
        found += [child for child in parent.children.values() if child.node is node]
    return found
