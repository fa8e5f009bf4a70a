# SPDX-License-Identifier: Apache-2.0
"""One dirty bitmap: its state, and its content, which is the native half's."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from blockyard.errors import Busy, InvalidOption
from blockyard.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockyard.node import Node

__all__ = ["Check", "DirtyBitmap", "bitmap_status"]

_NONE = 2**64 - 1
_PIECE = 1 << 20


class Check(enum.Flag):
    """What keeps a bitmap from being used in some way."""

    BUSY = 1
    READ_ONLY = 2
    INCONSISTENT = 4
    #: For what changes a bitmap's content.
    ALL = BUSY | READ_ONLY | INCONSISTENT
    #: For what only reads it, or changes its state in memory.
    USE = BUSY | INCONSISTENT


class DirtyBitmap:
    """A bitmap of a node; made by :func:`blockyard.bitmaps.create` and ``load``.

    Offsets and lengths are the node's, in bytes, where not said otherwise.
    """

    def __init__(self, node: Node, name: str, granularity: int, length: int) -> None:
        self.node = node
        self.name = name
        #: Bytes that a bit stands for, a power of two.
        self.granularity = granularity
        #: Used by an export or a job, so that QMP must leave it alone.
        self.busy = False
        #: Kept in the image.
        self.persistent = False
        #: What the image says of it is not true, so that it can only be removed.
        self.inconsistent = False
        #: About to be removed: not stored any more.
        self.skip_store = False
        self._read_only = False
        #: ``struct by_bitmap *``.
        self.native = _owned(lib.by_bitmap_create(granularity, length))

    def __repr__(self) -> str:
        return f"<DirtyBitmap '{self.name}' of '{self.node.name}'>"

    # -- state

    @property
    def recording(self) -> bool:
        """Whether changes of the node are recorded."""
        return bool(lib.by_bitmap_get_enabled(self.native))

    @recording.setter
    def recording(self, recording: bool) -> None:
        lib.by_bitmap_set_enabled(self.native, recording)

    @property
    def read_only(self) -> bool:
        """Whether neither the bitmap nor the node's data may change."""
        return self._read_only

    @read_only.setter
    def read_only(self, read_only: bool) -> None:
        self._read_only = read_only
        lib.by_bitmap_set_read_only(self.native, read_only)

    @property
    def stored(self) -> bool:
        """Whether it belongs in the image."""
        return self.persistent and not self.skip_store

    @property
    def length(self) -> int:
        """Bytes of the node that it covers."""
        return int(lib.by_bitmap_length(self.native))

    @property
    def count(self) -> int:
        """Bytes that are dirty: bits that are set, times the granularity."""
        return int(lib.by_bitmap_count(self.native)) * self.granularity

    def check(self, forbidden: Check) -> None:
        """Refuse a bitmap that is in one of the states.

        :raises Busy: in QEMU's words.
        :raises InvalidOption: if it is inconsistent.
        """
        if forbidden & Check.BUSY and self.busy:
            raise Busy(
                f"Bitmap '{self.name}' is currently in use by another operation and cannot be used"
            )
        if forbidden & Check.READ_ONLY and self.read_only:
            raise Busy(f"Bitmap '{self.name}' is readonly and cannot be modified")
        if forbidden & Check.INCONSISTENT and self.inconsistent:
            raise InvalidOption(f"Bitmap '{self.name}' is inconsistent and cannot be used")

    # -- content

    def mark(self, offset: int, length: int) -> None:
        """The range is dirty; what lies past the end is ignored."""
        lib.by_bitmap_set(self.native, offset, length)

    def clear(self) -> None:
        """Nothing is dirty any more."""
        lib.by_bitmap_clear(self.native)

    def merge(self, source: DirtyBitmap) -> None:
        """What is dirty in ``source`` is dirty here too; granularities may differ."""
        lib.by_bitmap_merge(self.native, source.native)

    def take(self) -> Any:
        """Clear the bitmap; what it held goes to :meth:`give_back`.

        :raises MemoryError: and nothing has changed.
        """
        held = _owned(lib.by_bitmap_create(self.granularity, self.length))
        lib.by_bitmap_swap(self.native, held)
        return held

    def give_back(self, held: Any) -> None:
        """Undo :meth:`take`; what became dirty since stays so."""
        lib.by_bitmap_merge(self.native, held)

    def copy(self) -> Any:
        """The present content, for :meth:`restore`.

        :raises MemoryError: without memory.
        """
        return _owned(lib.by_bitmap_copy(self.native))

    def restore(self, copy: Any) -> None:
        """Go back to what :meth:`copy` answered."""
        lib.by_bitmap_swap(self.native, copy)

    def areas(self) -> Iterator[tuple[int, int]]:
        """The dirty areas, each (offset, length), in order."""
        start = lib.by_bitmap_next_dirty(self.native, 0)
        while start != _NONE:
            end = min(lib.by_bitmap_next_clean(self.native, start), self.length)
            yield start, end - start
            start = lib.by_bitmap_next_dirty(self.native, end)

    # -- as bytes

    @property
    def serialised_bytes(self) -> int:
        """How long the bitmap is as bytes."""
        return -(-self.length // (8 * self.granularity))

    def serialise(self, at: int, count: int) -> bytes:
        """``count`` bytes of the bitmap as qcow2 stores it, from byte ``at`` on.

        The least significant bit of a byte is its first, and bits past the end are 0
        (qcow2.rst, "Bitmap data").  ``at`` is a multiple of 8.
        """
        out = bytearray(count)
        lib.by_bitmap_serialise(self.native, at, ffi.from_buffer(out), count)
        return bytes(out)

    def pieces(self, size: int) -> Iterator[tuple[int, bytes]]:
        """The bitmap as bytes, in pieces of ``size`` that begin at multiples of it.

        Each comes with the byte it begins at; pieces without a set bit are left out, and
        the last is as long as the rest is.  ``size`` is a multiple of 8.
        """
        covered = 8 * size * self.granularity
        start = lib.by_bitmap_next_dirty(self.native, 0)
        while start != _NONE:
            at = start // covered * size
            yield at, self.serialise(at, min(size, self.serialised_bytes - at))
            start = lib.by_bitmap_next_dirty(self.native, (start // covered + 1) * covered)

    def deserialise(self, at: int, data: bytes) -> None:
        """Add what is set in ``data``, the bitmap's bytes from ``at`` on, as :meth:`serialise`.

        What lies past the end is ignored.  For a piece that is all ones :meth:`mark`
        does the same without the bytes.
        """
        lib.by_bitmap_deserialise(self.native, at, ffi.from_buffer(data), len(data))

    def sha256(self) -> str:
        """The digest of the bitmap as bytes, filled up with zeroes to a multiple of 8."""
        import hashlib

        digest = hashlib.sha256()
        total = max(8, -(-self.serialised_bytes // 8) * 8)
        for at in range(0, total, _PIECE):
            digest.update(self.serialise(at, min(_PIECE, total - at)))
        return digest.hexdigest()


def _owned(native: Any) -> Any:
    if native == ffi.NULL:
        raise MemoryError
    return ffi.gc(native, lib.by_bitmap_free)


def bitmap_status() -> int:
    """The address of ``by_bitmap_status``, for a native plugin that shows bitmaps."""
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, "by_bitmap_status")))
