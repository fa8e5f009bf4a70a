# SPDX-License-Identifier: Apache-2.0
"""The yard: one block graph with everything around it, for the daemon and for programs.

::

    async with Yard() as yard:
        async with await yard.open(driver="file", filename="disk.img") as image:
            data = await image.read(0, 4096)

It runs on asyncio or trio.  Nothing native is started before it is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from blockyard.branches import provide_branches
from blockyard.carrier import Carrier
from blockyard.graph import Graph
from blockyard.loop import Control, Loops
from blockyard.objects import Objects
from blockyard.permission import ALL, NONE, Perm
from blockyard.plugins import Registry, default_registry
from blockyard.qmp.event import EventBus

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup

    from blockyard.export import Exports
    from blockyard.image import Image
    from blockyard.job import Jobs
    from blockyard.node import Node

__all__ = ["Yard"]

_log = logging.getLogger(__name__)


class Yard:
    """The composition root.  An async context manager; its parts exist inside it.

    Leaving it ends, in this order: jobs, exports, nodes, objects, loops.  Every
    write that was acknowledged is flushed on that way.
    """

    graph: Graph
    objects: Objects
    events: EventBus
    loops: Loops

    def __init__(
        self,
        *,
        registry: Registry | None = None,
        without_ring: bool = False,
        held: bool = False,
    ) -> None:
        """``without_ring``: never use io_uring; ``held``: ``accepting`` is not set yet."""
        self.registry = registry or default_registry()
        #: Set when clients may be accepted: servers wait for it, because a client must not
        #: meet half of what the command line asks for.  Only the daemon holds it back.
        self.accepting: anyio.Event
        #: Things of the plugins' own, by a name of theirs; one with an ``async close()``
        #: is closed with the yard, before the nodes.
        self.extra: dict[str, Any] = {}
        self._without_ring = without_ring
        self._held = held
        self._tasks: TaskGroup

    async def __aenter__(self) -> Yard:
        provide_branches(self.registry)
        self.accepting = anyio.Event()
        if not self._held:
            self.accepting.set()
        self.control = Control(without_ring=self._without_ring)
        self.events = EventBus()
        self.loops = Loops(self.control)
        self.graph = Graph(Carrier(self.control), self.registry, self.loops)
        self.graph.spawn = self.spawn
        self.graph.events = self.events
        self.objects = self.graph.objects = Objects(self)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self.control.serve)
        self._tasks.start_soon(self.events.serve)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        with anyio.CancelScope(shield=True):
            for close in self._closers():
                await _quietly(close)
        self._tasks.cancel_scope.cancel()
        try:
            if isinstance(error, Exception):
                # The body's, not the task group's, which would wrap it.
                await self._tasks.__aexit__(None, None, None)
                return None
            return await self._tasks.__aexit__(kind, error, trace)
        finally:
            # The last control joins threads, which takes a moment.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.control.close)

    @cached_property
    def exports(self) -> Exports:
        """What is served to clients outside."""
        from blockyard.export import Exports

        return Exports(self)

    @cached_property
    def jobs(self) -> Jobs:
        """Long work in the background."""
        from blockyard.job import Jobs

        return Jobs(self)

    def spawn(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run a background task that ends with the yard; an exception is logged, no more."""
        self._tasks.start_soon(_supervise, function, *args)

    # -- the library

    async def open(self, options: Mapping[str, Any] | None = None, /, **more: Any) -> Image:
        """Open an image.

        ``options`` are those of blockdev-add; keywords are the same with underscores
        for dashes.  The node-name may be left out.  Nobody else may write to or resize
        the image meanwhile; where ``read_only`` is given, this program neither.

        :raises BlockyardError: with QEMU's text; nothing is left open then.
        """
        from blockyard.schema import visit
        from blockyard.schema.block import BlockdevOptions

        visited = visit(BlockdevOptions, {**(options or {}), **_dashed(more)})
        async with self.graph.writer:
            node = await self.graph.add(visited, monitor_owned=False)
            return await self._attach_new(node, None, None)

    async def open_named(
        self,
        name: str | None,
        fmt: str | None = None,
        options: Mapping[str, Any] | None = None,
        /,
        *,
        defaults: Mapping[str, Any] | None = None,
        backing: bool = True,
        contents: bool = True,
        checking: bool = False,
        perm: Perm | None = None,
        shared: Perm | None = None,
    ) -> Image:
        """Open an image by its name: a path, ``nbd://host/disk``, ``json:{...}``...

        Without ``fmt``, the driver's name, what the image begins with decides.  Where
        raw is only what is left, writes that would make it look like something else
        fail (:attr:`blockyard.driver.Driver.guarded`).  ``options`` are more of
        blockdev-add's, and come before what the name says; ``defaults`` come after it.
        Texts are taken for numbers and booleans as well.  The name may be None if
        ``options`` say it all.

        ``backing=False`` leaves the backing file closed; ``contents=False`` opens the
        image only to ask about it: nothing is decrypted, so that no secret is needed.
        ``checking`` opens what is damaged as it is, for :meth:`Image.check`.
        What others may do meanwhile is as for :meth:`open`, unless ``perm`` and
        ``shared`` say what is needed and what is shared.

        :raises BlockyardError: with QEMU's text; nothing is left open then.
        """
        from blockyard.changes.named import open_named

        async with self.graph.writer:
            node = await open_named(
                self.graph,
                name,
                fmt,
                options or {},
                defaults=defaults or {},
                backing=backing,
                contents=contents,
                checking=checking,
            )
            return await self._attach_new(node, perm, shared)

    async def _attach_new(self, node: Node, perm: Perm | None, shared: Perm | None) -> Image:
        """The first handle on a node, which ends with it, or at once if it is refused."""
        from blockyard.image import Image

        if perm is None:
            perm = Perm.CONSISTENT_READ
            perm |= Perm.WRITE | Perm.RESIZE if node.writable else NONE
        if shared is None:
            shared = ALL & ~(Perm.WRITE | Perm.RESIZE)
        try:
            return Image(self, await self.graph.attach_root(node, perm, shared))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.graph.release(node)
            raise

    async def attach(
        self, node_name: str, *, writable: bool | None = None, share_writes: bool = False
    ) -> Image:
        """A handle on a node that exists.

        ``writable`` is what the node is unless said; ``share_writes`` lets other users
        write and resize at the same time.

        :raises NotFound: if there is no such node.
        :raises PermissionConflict: if another user is in the way.
        """
        from blockyard.image import Image

        node = self.graph.lookup(node_name)
        perm = Perm.CONSISTENT_READ
        if node.writable if writable is None else writable:
            perm |= Perm.WRITE | Perm.RESIZE
        shared = ALL if share_writes else ALL & ~(Perm.WRITE | Perm.RESIZE)
        return Image(self, await self.graph.attach_root(node, perm, shared))

    # -- the end

    def _closers(self) -> list[Callable[[], Awaitable[Any]]]:
        extras = [extra.close for extra in self.extra.values() if hasattr(extra, "close")]
        used = [self.__dict__[name].close for name in ("jobs", "exports") if name in self.__dict__]
        return [
            *used,
            *extras,
            self._close_roots,
            self.graph.close,
            self.objects.close,
            self.loops.close,
        ]

    async def _close_roots(self) -> None:
        """Handles that the program forgot."""
        for root in self.graph.roots():
            await self.graph.detach_root(root)


async def _quietly(close: Callable[[], Awaitable[Any]]) -> None:
    try:
        await close()
    except Exception:
        _log.exception("closing")


async def _supervise(function: Callable[..., Awaitable[Any]], *args: Any) -> None:
    try:
        await function(*args)
    except Exception:
        _log.exception("a background task failed")


def _dashed(value: Any) -> Any:
    """Keyword arguments as blockdev-add's members."""
    if isinstance(value, Mapping):
        return {key.replace("_", "-"): _dashed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_dashed(item) for item in value]
    return value
