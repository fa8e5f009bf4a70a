# SPDX-License-Identifier: Apache-2.0
"""Exports: nodes served to clients outside, and the registry of those that run.

A plugin declares an :class:`ExportType` and implements :class:`Export`.  The
registry (:class:`Exports`) checks everything that all exports have in common,
gives the export a root on its node, and sees to it that deleting one ends within
a bound whatever its clients do.
"""

from __future__ import annotations

import abc
import logging
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import attrs

from blockyard.changes.drain import hurried
from blockyard.entrypoints import implementation
from blockyard.errors import (
    BlockyardError,
    Busy,
    InvalidOption,
    NotFound,
    PermissionConflict,
    Unsupported,
)
from blockyard.identifier import identifier_ok
from blockyard.permission import ALL, Perm
from blockyard.qmp.event import event
from blockyard.schema.declare import struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockyard.graph import Graph
    from blockyard.loop import Loop, Loops
    from blockyard.node import Node
    from blockyard.root import Root
    from blockyard.yard import Yard

__all__ = ["BlockExportDeleted", "Export", "ExportType", "Exports"]

_log = logging.getLogger(__name__)

#: Seconds that an export's shutdown may take before it is reported.
SHUTDOWN_LIMIT = 30.0


@event("BLOCK_EXPORT_DELETED")
@struct
class BlockExportDeleted:
    """The data of BLOCK_EXPORT_DELETED: an export is gone, with all its clients.

    id: its name.
    """

    id: str


@attrs.frozen(eq=False, repr=False, kw_only=True)
class ExportType:
    """The declaration of an export type: cheap to import, found by entry point."""

    #: The name in QMP, ``"nbd"``.
    name: str
    #: The schema's struct for this branch of BlockExportOptions.
    options: type | None
    implementation: str | type[Export]
    #: Whether ``allow-inactive`` may be used.
    supports_inactive: bool = False
    #: Whether ``iothread`` may be a list.
    multithreaded: bool = False
    #: Whether others may change the node's length, which the export's clients then see.
    shares_resize: bool = False
    #: What errors call the type.
    title: str = ""


class Export(abc.ABC):
    """One running export.  All methods run on the control loop."""

    type: ClassVar[ExportType]

    def __init__(
        self, yard: Yard, export_id: str, options: Any, root: Root, loops: Sequence[Loop]
    ) -> None:
        """``options``: the visited BlockExportOptions; ``loops``: at least one, to serve on."""
        self.yard = yard
        self.id = export_id
        self.options = options
        self.root = root
        self.loops = tuple(loops)
        self.writable = bool(options.writable)
        self.shutting_down = False

    @property
    def node(self) -> Node:
        """The node that is exported; a graph change may replace it."""
        return self.root.node

    @abc.abstractmethod
    async def start(self) -> None:
        """Begin to serve.  A failed start leaves nothing behind; shutdown is not called."""

    @abc.abstractmethod
    async def shutdown(self) -> None:
        """End every client and everything else; bounded in time, whatever clients do.

        Afterwards no request uses :attr:`root`.
        """

    def in_use(self) -> bool:
        """Whether a client is connected, so that only a hard deletion is allowed."""
        return False

    # -- what the graph asks of a root's owner

    async def drained_begin(self) -> None:
        """Requests wait at the root by themselves; an export need not do anything."""

    async def drained_end(self) -> None:
        """The counterpart of :meth:`drained_begin`."""

    async def home_changed(self, home: Loop) -> None:
        """The node is served by another loop now; new clients should be too."""

    async def suspend(self) -> dict[str, Any]:
        """The export as plain data with a version, and descriptors.

        :raises Unsupported: naming the type; the default.
        """
        name = self.options.type
        raise Unsupported(f"Export type '{name}' of export '{self.id}' does not support suspending")


class Exports:
    """The exports of a yard, the newest first."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._exports: dict[str, Export] = {}
        self._gone: dict[str, anyio.Event] = {}

    @property
    def _graph(self) -> Graph:
        return self._yard.graph

    def __iter__(self) -> Any:
        return iter(list(self._exports.values())[::-1])

    def find(self, export_id: str) -> Export | None:
        """The export of that id, one that is shutting down too, or None."""
        return self._exports.get(export_id)

    async def add(self, options: Any) -> Export:
        """block-export-add: check, take permissions, start.

        :raises BlockyardError: with QEMU's text; nothing is left of the export then.
        """
        async with self._graph.writer:
            self._check_id(options.id)
            declaration = self._yard.registry.find("exports", options.type)
            node = self._graph.lookup(options.node_name)
            if node.read_only and options.writable:
                raise PermissionConflict("Cannot export read-only node as writable")
            loops = await self._choose_loops(declaration, options, node)
            await self._wake(declaration, options, node)
            return await self._start(declaration, options, node, loops)

    async def delete(self, export_id: str, *, hard: bool = False) -> None:
        """block-export-del.  Returns once the export is gone, or after a second, going.

        :raises NotFound: if there is none.
        :raises Busy: if clients are connected and it is not ``hard``, or it is going already.
        """
        export = self._exports.get(export_id)
        if export is None:
            raise NotFound(f"Export '{export_id}' is not found")
        if export.shutting_down:
            raise Busy(f"Export '{export_id}' is already shutting down")
        if not hard and export.in_use():
            raise Busy(f"export '{export_id}' still in use")
        gone = self._begin_end(export)
        with anyio.move_on_after(1):
            await gone.wait()

    async def close(self, kind: str | None = None) -> None:
        """End all exports, or those of one type, and wait until they are gone."""
        for export in self:
            if kind is None or export.options.type == kind:
                gone = self._gone.get(export.id) or self._begin_end(export)
                await gone.wait()

    # -- adding

    def _check_id(self, export_id: str) -> None:
        if not identifier_ok(export_id):
            raise InvalidOption("Invalid block export id")
        if export_id in self._exports:
            raise InvalidOption(f"Block export id '{export_id}' is already in use")

    async def _choose_loops(self, declaration: ExportType, options: Any, node: Node) -> list[Loop]:
        wanted = options.iothread
        if wanted is None:
            return [node.home]
        if isinstance(wanted, str):
            return [await self._move(node, self._loop(wanted), bool(options.fixed_iothread))]
        if options.fixed_iothread:
            raise InvalidOption("Cannot use fixed-iothread for a multi-threaded export")
        if not wanted:
            raise InvalidOption("The set of I/O threads must not be empty")
        loops = [self._loop(name) for name in wanted]
        if not declaration.multithreaded:
            title = declaration.title or declaration.name
            raise Unsupported(f"{title} export does not support multi-threading")
        return loops

    def _loop(self, name: str) -> Loop:
        loops: Loops = self._yard.loops
        loop = loops.find(name)
        if loop is None:
            raise NotFound(f'iothread "{name}" not found')
        return loop

    async def _move(self, node: Node, home: Loop, fixed: bool) -> Loop:
        try:
            await self._graph.move(node, home)
        except BlockyardError:
            if fixed:
                raise
            return node.home  # type: ignore[no-any-return]
        return home

    async def _wake(self, declaration: ExportType, options: Any, node: Node) -> None:
        if not options.allow_inactive:
            await self._graph.set_active(node, True)
        elif not declaration.supports_inactive:
            raise Unsupported("Export type does not support inactive exports")

    async def _start(
        self, declaration: ExportType, options: Any, node: Node, loops: list[Loop]
    ) -> Export:
        perm = Perm.CONSISTENT_READ | (Perm.WRITE if options.writable else Perm(0))
        shared = ALL if declaration.shares_resize else ALL & ~Perm.RESIZE
        root = await self._graph.attach_root(
            node,
            perm,
            shared,
            movable=not options.fixed_iothread,
            allow_inactive=bool(options.allow_inactive),
        )
        try:
            self._graph.carrier.set_root_writethrough(root.native, bool(options.writethrough))
            make = implementation(declaration)
            export: Export = make(self._yard, options.id, options, root, loops)
            root.owner = export
            await export.start()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._graph.detach_root(root)
            raise
        for loop in export.loops:
            loop.users += 1
        self._exports[export.id] = export
        return export

    # -- ending

    def _begin_end(self, export: Export) -> anyio.Event:
        export.shutting_down = True
        gone = self._gone[export.id] = anyio.Event()
        self._yard.spawn(self._end, export, gone)
        return gone

    async def _end(self, export: Export, gone: anyio.Event) -> None:
        with anyio.CancelScope(shield=True):
            try:
                with hurried([export.root.node]), anyio.fail_after(SHUTDOWN_LIMIT):
                    await export.shutdown()
            except Exception:
                _log.exception("export '%s' did not end cleanly", export.id)
            try:
                await self._graph.detach_root(export.root)
            finally:
                self._forget(export, gone)

    def _forget(self, export: Export, gone: anyio.Event) -> None:
        for loop in export.loops:
            loop.users -= 1
        del self._exports[export.id]
        del self._gone[export.id]
        gone.set()
        self._yard.events.emit(BlockExportDeleted(id=export.id))
