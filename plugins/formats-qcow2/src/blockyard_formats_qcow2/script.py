# SPDX-License-Identifier: Apache-2.0
"""The blocking form of :mod:`blockyard_formats_qcow2.library`, for scripts.

::

    with open_image("disk.qcow2") as image:
        print([each.name for each in image.snapshots()])
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from anyio.from_thread import start_blocking_portal

from blockyard.blocking import BlockingImage
from blockyard.branches import provide_branches
from blockyard.plugins import Registry, default_registry
from blockyard.yard import Yard
from blockyard_formats_qcow2.library import Qcow2Image, extent, open_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.from_thread import BlockingPortal

    from blockyard.imagework import CheckResult
    from blockyard.schema.blockinfo import SnapshotInfo
    from blockyard_formats_qcow2.library import Extent, StoredBitmap

__all__ = ["BlockingQcow2Image", "open_image"]


class BlockingQcow2Image(BlockingImage):
    """An open image: all of :class:`~blockyard.blocking.BlockingImage`, and qcow2's own."""

    def __init__(self, portal: BlockingPortal, image: Qcow2Image) -> None:
        super().__init__(portal, image)
        self._portal = portal
        self._qcow2 = image

    def snapshots(self) -> list[SnapshotInfo]:
        """The internal snapshots, in the table's order."""
        return self._portal.call(self._qcow2.snapshots)

    def bitmaps(self) -> list[StoredBitmap]:
        """The dirty bitmaps that the image stores."""
        return self._portal.call(self._qcow2.bitmaps)

    def dirty(self, name: str) -> list[tuple[int, int]]:
        """Offset and length of each range that the bitmap ``name`` shows as changed.

        :raises NotFound: if there is no such bitmap.
        :raises InvalidOption: if it was not stored properly.
        """
        return self._portal.call(lambda: list(self._qcow2.dirty(name)))

    def map(self, offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        """The extents of a range, the whole disk by default, in their order."""
        end = self.length if length is None else offset + length
        while offset < end:
            status = self.block_status(offset, end - offset)
            yield extent(offset, status)
            offset += status.bytes

    def info(self) -> dict[str, Any]:
        """What the header tells, with QAPI's names (ImageInfoSpecificQCow2)."""
        return self._portal.call(self._qcow2.info)

    def check(self) -> CheckResult:
        """Compare refcounts with references; nothing is repaired."""
        return self._portal.call(self._qcow2.check)


def open_image(source: Any, /, **options: Any) -> BlockingQcow2Image:
    """Open an image in a yard of its own, which ends with it.

    Arguments and errors are those of :func:`~blockyard_formats_qcow2.library.open_in`.
    """
    with ExitStack() as stack:
        # Its own registry, because a file object is registered there as a driver.
        stack.callback(lambda: provide_branches(default_registry()))
        portal = stack.enter_context(start_blocking_portal())
        yard = stack.enter_context(portal.wrap_async_context_manager(Yard(registry=Registry())))
        image = BlockingQcow2Image(portal, portal.call(partial(open_in, yard, source, **options)))
        image._with = stack.pop_all()
    return image
