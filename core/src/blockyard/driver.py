# SPDX-License-Identifier: Apache-2.0
"""Drivers: the control half of every kind of node.

Their request half is a table of C functions (``struct by_node_ops``), or the methods
of a :class:`PythonDriver`.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar

from blockyard import permission
from blockyard.breakpoints import Breakpoints
from blockyard.childlist import ChildList
from blockyard.errors import BlockyardError, Unsupported, from_errno
from blockyard.filename import path_combine
from blockyard.imagework import ImageWork
from blockyard.machinestate import MachineState
from blockyard.permission import Perm, Role
from blockyard.request import BlockStatus, Preallocation, RequestFlags, StatusFlags

if TYPE_CHECKING:
    from blockyard.access import Access
    from blockyard.declaration import ChildSpec, DriverType, Opened
    from blockyard.node import Child, Node

__all__ = ["Driver", "PythonDriver"]


class Driver(ImageWork, MachineState, Breakpoints, ChildList, abc.ABC):
    """The control half of a driver: one instance per node, made before its children open.

    What it can do with images besides is :class:`~blockyard.imagework.ImageWork` and
    :class:`~blockyard.machinestate.MachineState`, and stopping requests for tests is
    :class:`~blockyard.breakpoints.Breakpoints`; how its list of children changes is
    :class:`~blockyard.childlist.ChildList`.
    All methods run on the control loop and must not block it: what can hang goes
    to a thread (``anyio.to_thread.run_sync``).
    """

    #: The declaration; a driver in pure Python sets it in its class body.
    type: ClassVar[DriverType]
    #: Whether the format was guessed from the image's content: raw must not let its
    #: users turn it into another one.  Set before ``open``.
    guarded: bool = False

    def __init__(self, options: Any, node: Node) -> None:
        self.options = options
        self.node = node

    # -- life

    @abc.abstractmethod
    async def open(self) -> Opened:
        """Open the image.  ``self.node.children`` holds the children that options name.

        Those that :meth:`named_children` named are there as well, the backing file too.

        A failed open leaves nothing behind; ``close`` is not called after it.

        :raises BlockyardError: with QEMU's text where QEMU has one.
        """

    async def open_native(self) -> Opened:
        """What the graph calls: ``open``, and for drivers in Python the bridge as well."""
        return await self.open()

    async def close(self) -> None:
        """Release everything.  Nothing is in flight, and the native node is gone.

        Children are still open, and are closed afterwards.
        """

    async def close_native(self) -> None:
        """What the graph calls: ``close``, and for drivers in Python the bridge as well."""
        await self.close()

    async def before_close(self) -> None:
        """Write back what a clean end needs.  The native node is drained and still there."""

    def exact_filename(self) -> str | None:
        """A plain name that opens the same image, or None: then ``json:{...}`` is shown."""
        return None

    def directory(self) -> str | None:
        """What relative names in images that lie here are appended to; None: there is none.

        By default the folder in the exact name; a format's is its primary child's.
        """
        name = self.exact_filename()
        return None if name is None else path_combine(name, "")

    def strong_options(self) -> dict[str, Any]:
        """Options that decide which data the node shows, children left out.

        By default all that were given, as the schema spells them.
        """
        from blockyard.schema import dump

        given = dump(self.options) if self.options is not None else {}
        children = {spec.name for spec in self.node.type.children}
        return {name: value for name, value in given.items() if name not in children}

    # -- permissions

    def child_role(self, spec: ChildSpec) -> Role:
        """What the child is to this driver with the present options."""
        return spec.role

    def child_permissions(self, child: Child, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """What ``child`` is asked for when this node's users ask (perm, shared).

        The answer depends on nothing but the node's flags and the arguments.
        """
        node = self.node
        return permission.default_permissions(
            child.role, perm, shared, writable=node.writable, inactive=not node.active
        )

    async def check_permissions(self, perm: Perm, shared: Perm) -> None:
        """Prepare for these cumulative permissions: take the locks of old and new both.

        One of :meth:`set_permissions` and :meth:`abort_permissions` follows.

        :raises PermissionConflict: if another process does not share them.
        """

    async def set_permissions(self, perm: Perm, shared: Perm) -> None:
        """Commit what was checked last: drop what only the old permissions needed.

        Cannot fail.
        """

    async def abort_permissions(self) -> None:
        """Undo :meth:`check_permissions`.  Cannot fail."""

    # -- reopen; the three run in a drained section

    def reopen_supported(self) -> bool:
        """Whether blockdev-reopen may be used on the node."""
        return type(self).reopen_prepare is not Driver.reopen_prepare

    def reopen_judge(self, options: Any) -> None:
        """Refuse ``options`` (the branch struct) that the image itself contradicts.

        Asked where the graph is about to refuse them, so that the driver's reason is told.
        """

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        """Get ready to go on with ``options`` (the branch struct), changing nothing yet.

        ``node``'s flags are the new ones already (on abort they go back).  For an
        option that cannot change, leave it to the graph: it compares the rest.
        A failed prepare leaves nothing behind; abort is not called after it.
        """

    def reopen_commit(self) -> None:
        """Switch over.  Cannot fail.  ``self.options`` is set by the graph afterwards."""

    async def reopen_abort(self) -> None:
        """Forget what was prepared.  Cannot fail."""

    async def reopen_done(self) -> None:
        """After the commit of all nodes, still drained: the first writes.  Cannot fail."""

    async def check_resize(self, length: int) -> None:
        """Refuse a new length in the driver's own words; a filter or raw format asks its child."""
        for child in self.node.children.values():
            if child.role & Role.FILTERED:
                await child.node.driver.check_resize(length)

    def truncate_error(self, length: int, prealloc: str, error: BlockyardError) -> BlockyardError:
        """What to tell the user when TRUNCATE to ``length`` failed with ``error``."""
        return error

    def child_changed(self, name: str) -> None:
        """Called when the child is another node, in a drained section."""

    def child_resized(self, child: Child) -> int | None:
        """The node's length given its child's present one; None if that does not decide it.

        By default a filter is as long as what it shows.
        """
        return child.node.length if child.role & Role.FILTERED else None

    # -- drain and activity

    async def drained_begin(self) -> None:
        """Stop work of the control half's own; bounded in time.  drained_end follows."""

    async def drained_end(self) -> None:
        """Take that work up again."""

    def hurry_begin(self) -> None:
        """Somebody waits for requests in flight here: bound how long they may wait for peers.

        Told to the nodes of a drained section, those whose user ends, and all below them.
        It may come again before :meth:`hurry_end`, which is called as often.
        """

    def hurry_end(self) -> None:
        """The counterpart of :meth:`hurry_begin`."""

    async def set_active(self, active: bool) -> None:
        """Flush and let go of the image (False), or read its metadata again (True)."""

    # -- information

    async def image_info(self) -> dict[str, Any]:
        """Members of QAPI ImageInfo that the driver knows better.

        ``format-specific`` as QAPI has it: ``{"type": "qcow2", "data": {...}}``;
        ``dirty-flag``, ``encrypted``, ``compressed`` and ``cluster-size`` where they
        apply.  The backing file's names, snapshots and children are core's to tell.
        """
        return {}

    async def allocated_size(self) -> int | None:
        """Bytes that the image occupies, children left out; None if unknown.

        The graph asks the children of a driver that answers None.
        """
        return None

    def can_compress(self) -> bool:
        """Whether writes may ask to be compressed; a filter asks what it shows."""
        return False

    def statistics(self) -> dict[str, Any] | None:
        """QAPI BlockStatsSpecific without ``driver``, or None."""
        return None

    # -- dirty bitmaps; bitmaps.py says when persistent ones are read and written

    def can_store_bitmap(self, name: str, granularity: int) -> None:
        """Refuse a new persistent bitmap that the image cannot keep.

        :raises BlockyardError: with QEMU's text; by default always.
        """
        raise from_errno(95, f"Can't store persistent bitmaps to {self.node.name}")

    async def remove_persistent_bitmap(self, name: str) -> None:
        """Drop what the image stores of a bitmap; none there is no error."""

    # -- images

    @classmethod
    async def create(cls, options: Any, yard: Any) -> None:
        """Make an image from the branch struct of BlockdevCreateOptions.

        :raises Unsupported: by drivers that create none.
        """
        raise Unsupported("Driver does not support blockdev-create")

    # -- moving to another process

    async def suspend(self) -> dict[str, Any]:
        """The node as versioned data and descriptors; refused by name unless overridden."""
        raise Unsupported(
            f"Block driver '{self.node.type.name}' of node '{self.node.name}' "
            "does not support suspending"
        )

    async def resume(self, data: dict[str, Any]) -> Opened:
        """:meth:`open` from what :meth:`suspend` gave; refused by name unless overridden."""
        raise Unsupported(f"Block driver '{self.node.type.name}' does not support resuming")


class PythonDriver(Driver):
    """A driver whose requests are Python too: a protocol in thirty lines.

    :meth:`open`, :meth:`close` and the request methods run on a thread and event
    loop (asyncio) that the process's Python drivers share, many at a time.  Offsets
    and lengths are within the limits and the node's length.  An ``OSError`` (with
    its errno) or a :class:`BlockyardError` fails the request and nothing else.
    Implement :meth:`read` or :meth:`read_into`; a driver that overrides neither
    :meth:`write` nor another changing method is read-only.
    """

    #: Requests that may be running at once; more wait in line.
    max_in_flight: ClassVar[int] = 64
    #: What :meth:`write` and :meth:`write_zeroes` honour; core sees to the rest.
    write_flags: ClassVar[RequestFlags] = RequestFlags(0)
    write_zeroes_flags: ClassVar[RequestFlags] = RequestFlags(0)
    #: The :class:`blockyard.bridge.Bridge`, while the driver is open.
    bridge: Any = None
    #: The :class:`blockyard.inner.Children`, from before :meth:`open` on.
    children: Any = None

    def child(self, name: str) -> Access:
        """Requests to the child of that name; in :meth:`open`, :meth:`close` and the methods below.

        :raises InvalidOption: if there is no such child.
        """
        access: Access = self.children.access(name)
        return access

    def child_changed(self, name: str) -> None:
        """Follow a child that was replaced."""
        if self.children is not None:
            self.children.changed(name)

    async def open_native(self) -> Opened:
        """``open``, then the bridge: requests reach the methods below from then on."""
        from blockyard import bridge

        return await bridge.open_driver(self)

    async def close_native(self) -> None:
        """Take the bridge down and ``close``, both on the drivers' thread."""
        from blockyard import bridge

        await bridge.close_driver(self)

    async def read(self, offset: int, length: int) -> bytes:
        """The ``length`` bytes at ``offset``."""
        raise from_errno(95)

    async def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` with the bytes at ``offset``.  It is revoked at completion."""
        data = await self.read(offset, len(view))
        if len(data) != len(view):
            raise from_errno(5, f"Driver '{self.node.type.name}' returned a short read")
        view[:] = data

    async def write(self, offset: int, view: memoryview, flags: RequestFlags) -> None:
        """Write ``view`` at ``offset``.  It is revoked at completion."""
        raise from_errno(95)

    async def flush(self) -> None:
        """Bring what was written to stable storage."""

    async def discard(self, offset: int, length: int) -> None:
        """The range's content does not matter any more."""

    async def write_zeroes(self, offset: int, length: int, flags: RequestFlags) -> None:
        """Make the range read as zeroes; core writes zeroes if not overridden."""
        raise from_errno(95)

    async def block_status(self, offset: int, length: int) -> BlockStatus:
        """What holds for the first bytes of the range."""
        return BlockStatus(flags=StatusFlags.DATA | StatusFlags.ALLOCATED, bytes=length)

    async def truncate(self, length: int, prealloc: Preallocation, exact: bool) -> None:
        """Change the length."""
        raise from_errno(95)
