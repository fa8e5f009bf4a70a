# SPDX-License-Identifier: Apache-2.0
"""The blocking form of the library, for scripts.

::

    with open_blocking(driver="file", filename="disk.img") as image:
        header = image.read(0, 512)

Requests wait in the calling thread, without the GIL; several threads may use one
image.  A thread in the background holds the event loop that opening and closing
need.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from blockyard.request import BlockStatus, Limits, Op, Preallocation, RequestFlags
from blockyard.yard import Yard

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from anyio.from_thread import BlockingPortal

    from blockyard.image import Image, Statistics
    from blockyard.plugins import Registry

__all__ = ["BlockingImage", "BlockingYard", "open_blocking"]


class BlockingYard:
    """A :class:`~blockyard.yard.Yard` on a thread of its own; a context manager."""

    def __init__(self, *, registry: Registry | None = None) -> None:
        self._registry = registry
        self._stack = ExitStack()
        self._portal: BlockingPortal
        self._yard: Yard

    def __enter__(self) -> BlockingYard:
        from anyio.from_thread import start_blocking_portal

        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            made = Yard(registry=self._registry)
            self._yard = stack.enter_context(self._portal.wrap_async_context_manager(made))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def open(self, options: Mapping[str, Any] | None = None, /, **more: Any) -> BlockingImage:
        """Open an image; options and errors as those of :meth:`blockyard.yard.Yard.open`."""
        yard = self._yard
        image = self._portal.call(lambda: yard.open(options, **more))
        return BlockingImage(self._portal, image)


class BlockingImage:
    """A node, opened for this program; a context manager that closes it.

    Every request raises :class:`~blockyard.errors.ImageIOError` when it fails.
    """

    def __init__(self, portal: BlockingPortal, image: Image) -> None:
        self._portal = portal
        self._image = image
        self._open = True
        self._access = image.root.access
        #: Closed after the image.
        self._with = ExitStack()

    def __enter__(self) -> BlockingImage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def length(self) -> int:
        """Bytes, now."""
        return self._image.length

    @property
    def limits(self) -> Limits:
        """What the driver's requests look like; core brings any request into that form."""
        return self._image.limits

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        return self._image.read_only

    def read(self, offset: int, length: int) -> bytes:
        """The ``length`` bytes at ``offset``."""
        return self._access.read_now(offset, length)

    def read_into(self, offset: int, buffer: Any) -> int:
        """Fill a writable buffer from ``offset`` on; answers its length in bytes."""
        return self._access.read_into_now(offset, buffer)

    def write(self, offset: int, data: Any, *, fua: bool = False) -> int:
        """Write a buffer at ``offset``; ``fua``: it is on stable storage afterwards."""
        return self._access.write_now(offset, data, fua=fua)

    def flush(self) -> None:
        """Bring everything written before to stable storage."""
        self._access.wait_now(Op.FLUSH)

    def discard(self, offset: int, length: int) -> None:
        """Tell that the range's content does not matter any more."""
        self._access.wait_now(Op.DISCARD, offset, length)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool = False) -> None:
        """Make the range read as zeroes; ``may_unmap``: it may be deallocated."""
        flags = RequestFlags.MAY_UNMAP if may_unmap else RequestFlags(0)
        self._access.wait_now(Op.WRITE_ZEROES, offset, length, flags=flags)

    def block_status(self, offset: int, length: int) -> BlockStatus:
        """What holds for the first bytes of the range."""
        return self._access.block_status_now(offset, length)

    def resize(self, length: int, *, prealloc: Preallocation = Preallocation.OFF) -> None:
        """Change the length."""
        self._access.wait_now(Op.TRUNCATE, length, prealloc=prealloc, exact=True)

    def stats(self) -> Statistics:
        """What the node has carried, for all its users."""
        return self._image.stats()

    def close(self) -> None:
        """Give the node up; closing twice does nothing."""
        if self._open:
            self._open = False
            try:
                self._portal.call(self._image.close)
            finally:
                self._with.close()


def open_blocking(options: Mapping[str, Any] | None = None, /, **more: Any) -> BlockingImage:
    """Open an image in a yard of its own, which ends with it.

    ``options`` are those of blockdev-add, or keywords with underscores for dashes.

    :raises BlockyardError: with QEMU's text; nothing is left open then.
    """
    with ExitStack() as stack:
        yard = stack.enter_context(BlockingYard())
        image = yard.open(options, **more)
        image._with = stack.pop_all()
    return image
