# SPDX-License-Identifier: Apache-2.0
"""Requests: the vocabulary of the data path, the same in C and in Python.

``include/blockyard.h`` has the same names with the prefix ``BY_``; a test holds
the numbers equal.  Lengths and offsets are bytes, 64 bits wide, everywhere.
"""

import enum

import attrs

__all__ = [
    "MAX_LENGTH",
    "BlockStatus",
    "Limits",
    "Op",
    "Preallocation",
    "RequestFlags",
    "StatusFlags",
]

#: The longest node, QEMU's BDRV_MAX_LENGTH: 2**63 rounded down to a gibibyte.
MAX_LENGTH = (1 << 63) - (1 << 30)


class Op(enum.IntEnum):
    """What a request does."""

    READ = 0
    WRITE = 1
    #: Everything completed before is on stable storage afterwards.
    FLUSH = 2
    #: The range's content does not matter any more; a hint.
    DISCARD = 3
    WRITE_ZEROES = 4
    #: ``offset`` is the new length.
    TRUNCATE = 5
    BLOCK_STATUS = 6
    #: From this node into another, without passing through memory.
    COPY_RANGE = 7
    #: A hint that the range will be read soon.
    PREFETCH = 8


class RequestFlags(enum.IntFlag):
    """How a request is carried out; core emulates what a driver does not serve."""

    #: On stable storage at completion.
    FUA = 0x01
    #: WRITE_ZEROES may deallocate the range.
    MAY_UNMAP = 0x02
    #: WRITE_ZEROES fails with ENOTSUP rather than write zeroes slowly.
    NO_FALLBACK = 0x04
    #: What a guest reads stays the same.
    WRITE_UNCHANGED = 0x08
    COMPRESSED = 0x10
    #: Nothing that overlaps runs at the same time.
    SERIALISING = 0x20
    #: The buffer lies in memory registered with the graph.
    REGISTERED = 0x40
    #: Nobody changes the payload before completion.
    STABLE = 0x80


class StatusFlags(enum.IntFlag):
    """What is known about a range of a node."""

    #: There is data here that must be read to be known.
    DATA = 0x01
    #: The range reads as zeroes.
    ZERO = 0x02
    #: This layer decides the content, not a backing file.
    ALLOCATED = 0x04
    #: ``host_offset`` and ``owner`` are valid.
    OFFSET = 0x08
    COMPRESSED = 0x10
    #: ``owner`` may know more at ``host_offset``.
    RECURSE = 0x20
    #: The range ends where the node does.
    EOF = 0x40


class Preallocation(enum.IntEnum):
    """What TRUNCATE does with the room it adds."""

    OFF = 0
    METADATA = 1
    FALLOC = 2
    FULL = 3


@attrs.frozen(kw_only=True)
class BlockStatus:
    """The answer to BLOCK_STATUS: what holds for the first ``bytes`` of the range asked."""

    flags: StatusFlags
    #: At least 1, at most what was asked.
    bytes: int
    #: Where the range lies in ``owner``; valid with :attr:`StatusFlags.OFFSET`.
    host_offset: int = 0
    #: The node that holds the data, a :class:`blockyard.node.Node`, if known.
    owner: object | None = None
    #: Layers between the asked node and the one that decided; 0 is the node itself.
    depth: int = 0

    @property
    def data(self) -> bool:
        """Whether there is data to be read here."""
        return bool(self.flags & StatusFlags.DATA)

    @property
    def zero(self) -> bool:
        """Whether the range reads as zeroes."""
        return bool(self.flags & StatusFlags.ZERO)

    @property
    def allocated(self) -> bool:
        """Whether the asked node, not a backing file, decides the content."""
        return bool(self.flags & StatusFlags.ALLOCATED)


@attrs.frozen(kw_only=True)
class Limits:
    """What requests a driver takes.  Bytes; 0 means "no limit"; alignments default to 1.

    Core aligns, bounces and splits so that a driver never sees anything else.
    """

    #: Offset and length are multiples of this power of two.
    request_alignment: int = 1
    #: Each buffer's address and length are multiples of this power of two.
    memory_alignment: int = 1
    #: Entries in one request's scatter list.
    max_iov: int = 0
    #: A multiple of ``request_alignment``.
    max_transfer: int = 0
    max_write_zeroes: int = 0
    max_discard: int = 0
    #: Preferred granularity of DISCARD.
    discard_alignment: int = 0
    #: Preferred granularity of WRITE_ZEROES.
    write_zeroes_alignment: int = 0
    #: The transfer length that the storage likes best.
    optimal_transfer: int = 0
    #: A format's allocation unit.
    cluster_size: int = 0
