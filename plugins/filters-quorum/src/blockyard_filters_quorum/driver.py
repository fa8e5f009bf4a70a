# SPDX-License-Identifier: Apache-2.0
"""The control half of ``quorum``."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from blockyard.errors import InvalidOption, from_errno
from blockyard.node import Child, Driver, Opened
from blockyard.permission import Perm
from blockyard.request import Limits
from blockyard_filters_quorum.events import QuorumFailure, QuorumOpType, QuorumReportBad
from blockyard_filters_quorum.native import ffi, lib
from blockyard_filters_quorum.schema import QuorumReadPattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blockyard.node import Node

__all__ = ["QuorumDriver"]

_log = logging.getLogger(__name__)
_SECTOR = 512
_KIND_BITS = 3
_EIO = 5


class QuorumDriver(Driver):
    """Writes to all children, and reads what most of them have.

    With ``blkverify`` a difference fails the read with EIO, and is logged in QEMU's
    words.  QEMU ends the process; here others are served by it.
    """

    list_changes = True

    def __init__(self, options: Any, node: Node) -> None:
        super().__init__(options, node)
        self._tag = 0
        self._state = ffi.NULL
        self._threshold = int(options.vote_threshold)
        self._fifo = options.read_pattern == QuorumReadPattern.FIFO
        # Where one child is read, there is nothing to compare.
        self._blkverify = bool(options.blkverify) and not self._fifo
        self._rewrite = bool(options.rewrite_corrupted) and not self._fifo
        self._next_index = len(options.children)

    # -- life

    async def named_children(self) -> Mapping[str, Any]:
        """Refuse options that do not fit together, before a child is opened.

        :raises InvalidOption: with QEMU's text.
        """
        count = len(self.options.children)
        if count < 1:
            raise InvalidOption("Number of provided children must be 1 or more")
        if self._threshold < 1:
            raise InvalidOption("Parameter 'vote-threshold' expects a value >= 1")
        if self._threshold > count:
            raise InvalidOption("threshold may not exceed children count")
        if self._blkverify and (count != 2 or self._threshold != 2):
            raise InvalidOption(
                "blkverify=on can only be set if there are exactly two files "
                "and vote-threshold is 2"
            )
        if self._blkverify and self._rewrite:
            raise InvalidOption("rewrite-corrupted=on cannot be used with blkverify=on")
        return {}

    async def open(self) -> Opened:
        """The children are as long as each other."""
        length = self._common_length()
        if length is None:
            raise from_errno(_EIO, "Could not refresh total sector count")
        self._tag = self.node.graph.carrier.control.tag(self._reported)
        settings = {
            "threshold": self._threshold,
            "fifo": self._fifo,
            "rewrite": self._rewrite,
            "blkverify": self._blkverify,
            "tag": self._tag,
        }
        state = lib.by_quorum_create(ffi.new("struct by_quorum_settings *", settings))
        if state == ffi.NULL:
            self.node.graph.carrier.control.release(self._tag)
            raise MemoryError("by_quorum_create")
        self._state = state
        return Opened(
            ops=lib.by_quorum_ops(),
            state=int(ffi.cast("uintptr_t", state)),
            length=length,
            limits=self._limits(),
        )

    async def close(self) -> None:
        """Free the state."""
        self.node.graph.carrier.control.release(self._tag)
        lib.by_quorum_free(self._state)
        self._state = ffi.NULL

    def _common_length(self) -> int | None:
        lengths = {child.node.length for child in self.node.children.values()}
        return lengths.pop() if len(lengths) == 1 else None

    def _limits(self) -> Limits:
        """What suits all children, so that what is shared is made to fit once."""
        below = [child.node.limits for child in self.node.children.values()]
        transfers = [limits.max_transfer for limits in below if limits.max_transfer]
        vectors = [limits.max_iov for limits in below if limits.max_iov]
        return Limits(
            memory_alignment=max(limits.memory_alignment for limits in below),
            max_transfer=min(transfers, default=0),
            max_iov=min(vectors, default=0),
            optimal_transfer=max(limits.optimal_transfer for limits in below),
        )

    # -- reports

    def _reported(self, event: Any) -> None:
        lib.by_quorum_heard(self._state)
        kind = event.kind & ((1 << _KIND_BITS) - 1)
        if kind == lib.BY_QUORUM_DIFFERENCE:
            _log.error(
                "quorum: offset=%d bytes=%d contents mismatch at offset %d",
                event.a,
                event.b,
                event.a + event.result,
            )
            return
        first = event.a // _SECTOR
        sectors = -(-(event.a + event.b) // _SECTOR) - first
        if kind == lib.BY_QUORUM_FAILURE:
            self._emit(QuorumFailure, reference=self.node.name, first=first, sectors=sectors)
            return
        children, index = list(self.node.children.values()), event.kind >> _KIND_BITS
        if index >= len(children):
            return  # it has left since
        self._emit(
            QuorumReportBad,
            type=_TYPES[kind],
            error=os.strerror(-event.result) if event.result else None,
            node_name=children[index].node.name,
            first=first,
            sectors=sectors,
        )

    def _emit(self, event: type, *, first: int, sectors: int, **members: Any) -> None:
        self.node.graph.events.emit(event(sector_num=first, sectors_count=sectors, **members))

    # -- permissions

    def child_permissions(self, child: Child, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """What the users ask; nobody else may change one child and not the others."""
        if self._rewrite:
            perm |= Perm.WRITE
        return perm, Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED

    def child_resized(self, child: Child) -> int | None:
        """All children decide the length together."""
        return self._common_length()

    # -- children that come and go

    def new_child_name(self, node: Node) -> str:
        """The number behind the last child's.

        :raises InvalidOption: with ``blkverify``, and if the node has another length.
        """
        if self._blkverify:
            raise InvalidOption("Cannot add a child to a quorum in blkverify mode")
        if node.length != self.node.length:
            raise InvalidOption(
                f"Node '{node.name}' has {node.length} bytes, "
                f"but the children of '{self.node.name}' have {self.node.length}"
            )
        return f"children.{self._next_index}"

    def check_child_leaves(self, child: Child) -> None:
        """As many as the threshold must stay.

        :raises InvalidOption: with QEMU's text.
        """
        if len(self.node.children) <= self._threshold:
            raise InvalidOption(
                f"The number of children cannot be lower than the vote threshold {self._threshold}"
            )

    def child_list_changed(self, joined: str | None, left: str | None) -> None:
        """Count on; the number of a last child that goes is used again."""
        if joined is not None:
            self._next_index += 1
        elif left == f"children.{self._next_index - 1}":
            self._next_index -= 1
        self.node.limits = self._limits()
        self.node.graph.carrier.set_limits(self.node, self.node.limits)


_TYPES = {
    lib.BY_QUORUM_BAD_READ: QuorumOpType.READ,
    lib.BY_QUORUM_BAD_WRITE: QuorumOpType.WRITE,
    lib.BY_QUORUM_BAD_FLUSH: QuorumOpType.FLUSH,
}
