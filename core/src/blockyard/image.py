# SPDX-License-Identifier: Apache-2.0
"""The library's handle on a node: what :meth:`blockyard.yard.Yard.open` answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import attrs

from blockyard.imagework import Fix
from blockyard.permission import Perm
from blockyard.request import BlockStatus, Limits, Op, Preallocation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from blockyard.imagework import CheckResult
    from blockyard.node import Node
    from blockyard.root import Root
    from blockyard.yard import Yard

__all__ = ["Image", "OpStatistics", "Statistics"]

_STAT_NAMES = ("done", "failed", "invalid", "bytes", "total_ns", "merged")


@attrs.frozen
class OpStatistics:
    """What has been carried of one operation."""

    #: Requests that succeeded.
    done: int
    #: Requests that failed on their way.
    failed: int
    #: Requests that were refused before they entered.
    invalid: int
    bytes: int
    #: Time that the successful ones took together.
    total_ns: int
    merged: int


@attrs.frozen
class Statistics:
    """What a node has carried since it was opened."""

    #: By the operation's name: ``"read"``, ``"write"``, ``"write_zeroes"``...
    op: Mapping[str, OpStatistics]
    #: One past the last byte written.
    write_highest: int
    in_flight: int


class Image:
    """A node, opened for this program: reads and writes, asynchronously.

    ``async with`` closes it at the end.  Every request raises
    :class:`~blockyard.errors.ImageIOError` with the errno when it fails.  A call
    that is cancelled returns at once; its request goes on, with the buffer pinned.
    """

    def __init__(self, yard: Yard, root: Root) -> None:
        self._yard = yard
        self._access = root.access
        self.root = root

    async def __aenter__(self) -> Image:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def node(self) -> Node:
        """The node underneath."""
        return self.root.node

    @property
    def length(self) -> int:
        """Bytes, now."""
        return self.node.length

    @property
    def limits(self) -> Limits:
        """What the driver's requests look like; core brings any request into that form."""
        return self.node.limits

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        return not self.root.perm & Perm.WRITE

    async def read(self, offset: int, length: int) -> bytes:
        """The ``length`` bytes at ``offset``."""
        return await self._access.read(offset, length)

    async def read_into(self, offset: int, buffer: Any) -> int:
        """Fill a writable buffer from ``offset`` on; answers its length in bytes."""
        return await self._access.read_into(offset, buffer)

    async def write(
        self, offset: int, data: Any, *, fua: bool = False, compressed: bool = False
    ) -> int:
        """Write a buffer at ``offset``; ``fua``: it is on stable storage afterwards.

        ``compressed``: it is kept so, by formats that can; others fail with ENOTSUP.
        """
        return await self._access.write(offset, data, fua=fua, compressed=compressed)

    async def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        """Fill several buffers, one after the other, by one request; answers the bytes read."""
        return await self._access.readv(offset, buffers)

    async def writev(self, offset: int, buffers: Sequence[Any], *, fua: bool = False) -> int:
        """Write several buffers, one after the other, in one request."""
        return await self._access.writev(offset, buffers, fua=fua)

    async def flush(self) -> None:
        """Bring everything written before to stable storage."""
        await self._access.flush()

    async def discard(self, offset: int, length: int) -> None:
        """Tell that the range's content does not matter any more."""
        await self._access.discard(offset, length)

    async def write_zeroes(
        self,
        offset: int,
        length: int,
        *,
        may_unmap: bool = False,
        no_fallback: bool = False,
        fua: bool = False,
    ) -> None:
        """Make the range read as zeroes.

        ``may_unmap``: it may be deallocated; ``no_fallback``: fail rather than be slow.
        """
        await self._access.write_zeroes(
            offset, length, may_unmap=may_unmap, no_fallback=no_fallback, fua=fua
        )

    async def block_status(self, offset: int, length: int, *, layers: int = 0) -> BlockStatus:
        """What holds for the first bytes of the range.

        ``layers``: how many of a backing chain are asked; 0 is all, 1 the image alone.
        """
        return await self._access.block_status(offset, length, layers=layers)

    async def truncate(
        self, length: int, *, prealloc: Preallocation = Preallocation.OFF, exact: bool = True
    ) -> None:
        """Change the length."""
        await self._access.truncate(length, prealloc=prealloc, exact=exact)

    async def resize(self, length: int) -> None:
        """:meth:`truncate` without preallocation."""
        await self.truncate(length)

    async def check(
        self, fix: Fix = Fix.NONE, tell: Callable[[str], None] | None = None
    ) -> CheckResult:
        """Look for what is wrong in the image's tables, and repair what ``fix`` says.

        ``tell`` is called with each finding, a sentence, as soon as it is found.

        :raises Unsupported: by formats without a check.
        :raises ImageIOError: if the check itself cannot go on.
        """
        graph = self._yard.graph
        async with graph.writer, graph.drained([self.node]):
            return await self.node.driver.check(fix, tell)

    async def prefetch(self, offset: int, length: int) -> None:
        """Hint that the range will be read soon."""
        await self._access.prefetch(offset, length)

    async def copy_range(self, offset: int, length: int, target: Image, target_offset: int) -> None:
        """Copy a range into another image without passing through memory."""
        await self._access.copy_range(offset, length, target._access, target_offset)

    def drained(self) -> AbstractAsyncContextManager[None]:
        """``async with image.drained():`` nothing is in flight, and new requests wait."""
        return self._yard.graph.drained([self.node])

    def stats(self) -> Statistics:
        """What the node has carried, for all its users."""
        raw = self._yard.graph.carrier.statistics(self.node)
        ops = {
            op.name.lower(): OpStatistics(*(getattr(raw.op[op], name) for name in _STAT_NAMES))
            for op in Op
        }
        return Statistics(ops, raw.write_highest, raw.in_flight)

    async def close(self) -> None:
        """Give the node up; it ends unless something else uses it.  Cannot be cancelled."""
        with anyio.CancelScope(shield=True):
            await self._yard.graph.detach_root(self.root)
