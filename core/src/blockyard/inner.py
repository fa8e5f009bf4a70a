# SPDX-License-Identifier: Apache-2.0
"""Requests of drivers in Python to their own children.

They come from the drivers' thread and enter below the driver, so a drained section
does not hold them back: what is in flight above could not end otherwise.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import attrs

from blockyard.access import Access
from blockyard.errors import InvalidOption
from blockyard.loop import Control

if TYPE_CHECKING:
    from blockyard.node import Node, PythonDriver

__all__ = ["Children", "ThreadControl"]


@attrs.define(eq=False)
class ThreadControl:
    """A :class:`~blockyard.loop.Control` on the drivers' event loop, started when needed."""

    _control: Control | None = None
    _task: asyncio.Task[None] | None = None

    def get(self) -> Control:
        """The control.  On the drivers' loop."""
        if self._control is None:
            self._control = Control()
            self._task = asyncio.get_running_loop().create_task(self._control.serve())
        return self._control

    async def close(self) -> None:
        """End it; no request is under way.  On the drivers' loop."""
        if self._control is not None and self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._control.close()


@attrs.define(eq=False)
class Children:
    """A driver's children, as far as it has asked for them."""

    driver: PythonDriver
    control: ThreadControl
    #: ``struct by_root *`` and what enters there, by the child's name.
    _open: dict[str, tuple[Any, Access]] = attrs.field(factory=dict)

    def access(self, name: str) -> Access:
        """Requests to the child called ``name``.  On the drivers' loop.

        :raises InvalidOption: if there is no such child.
        """
        child = self.driver.node.children.get(name)
        if child is None:
            raise InvalidOption(f"Node '{self.driver.node.name}' has no child '{name}'")
        if name not in self._open:
            self._open[name] = self._enter(child.node)
        return self._open[name][1]

    def changed(self, name: str) -> None:
        """The child may be another node now.  On the control loop, drained."""
        child = self.driver.node.children.get(name)
        if name in self._open and child is not None:
            root, _ = self._open[name]
            lib = self.control.get().lib
            lib.by_root_set_node(root, child.node.native)
            lib.by_root_set_writable(root, not child.node.read_only, True)

    async def close(self) -> None:
        """Give all of them up.  On the drivers' loop."""
        while self._open:
            _, (root, _) = self._open.popitem()
            control = self.control.get()
            await control.call(_freeing(control.lib, root))

    def _enter(self, node: Node) -> tuple[Any, Access]:
        control = self.control.get()
        root = control.lib.by_root_create(node.native)
        if root == control.ffi.NULL:
            raise MemoryError("by_root_create")
        control.lib.by_root_set_writable(root, not node.read_only, True)
        node_at = node.graph.carrier.node_at
        return root, Access(control, root, inner=True, node_at=node_at)


def _freeing(lib: Any, root: Any) -> Any:
    return lambda tag: lib.by_root_free(root, tag)
