# SPDX-License-Identifier: Apache-2.0
"""The control half of ``blkverify``."""

from __future__ import annotations

import logging
from typing import Any

from blockyard.naming import names_of
from blockyard.node import Child, Driver, Opened
from blockyard.request import Limits
from blockyard_filters_debug.native import ffi, lib

__all__ = ["BlkverifyDriver"]

_log = logging.getLogger(__name__)


class BlkverifyDriver(Driver):
    """Compares what is read from a disk with what is read from its raw copy.

    A difference fails the request with EIO, and is logged in QEMU's words.  QEMU ends
    the process; here others are served by it.
    """

    def __init__(self, options: Any, node: Any) -> None:
        super().__init__(options, node)
        self._tag = 0
        self._state = ffi.NULL

    async def open(self) -> Opened:
        """The disk under test decides the length."""
        self._tag = self.node.graph.carrier.control.tag(self._differs)
        self._state = ffi.new("struct by_blkverify *", {"tag": self._tag})
        raw, test = (self.node.children[name].node for name in ("raw", "test"))
        return Opened(
            ops=lib.by_blkverify_ops(),
            state=int(ffi.cast("uintptr_t", self._state)),
            length=test.length,
            limits=Limits(
                request_alignment=max(raw.limits.request_alignment, test.limits.request_alignment),
                memory_alignment=max(raw.limits.memory_alignment, test.limits.memory_alignment),
            ),
        )

    async def close(self) -> None:
        """Free the state."""
        self.node.graph.carrier.control.release(self._tag)
        self._state = ffi.NULL

    def _differs(self, event: Any) -> None:
        what = "write" if event.kind == lib.BY_BLKVERIFY_WRITE_RESULT else "read"
        how = "return value mismatch"
        if event.kind == lib.BY_BLKVERIFY_CONTENT:
            how = f"contents mismatch at offset {event.a + event.result}"
        _log.error("blkverify: %s offset=%d bytes=%d %s", what, event.a, event.b, how)

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        """Nothing but flags can change, and they need nothing."""

    def child_resized(self, child: Child) -> int | None:
        """The disk under test decides the length."""
        return child.node.length if child.name == "test" else None

    def exact_filename(self) -> str | None:
        """``blkverify:RAW:TEST``, where both have plain names."""
        raw, test = (names_of(self.node.children[n].node).exact for n in ("raw", "test"))
        return None if raw is None or test is None else f"blkverify:{raw}:{test}"
