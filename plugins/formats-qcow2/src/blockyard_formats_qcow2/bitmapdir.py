# SPDX-License-Identifier: Apache-2.0
"""The directory of stored bitmaps, as bytes (docs/interop/qcow2.rst, "Bitmap directory")."""

from __future__ import annotations

import enum
import os
import struct

import attrs

from blockyard.errors import InvalidOption

__all__ = ["BitmapFlags", "Entry", "build_directory", "check_constraints", "parse_directory"]

_ENTRY = struct.Struct(">QIIBBHI")
_DIRTY_TRACKING = 1
_MIN_GRANULARITY_BITS = 9
_MAX_GRANULARITY_BITS = 31
_MAX_NAME = 1023
#: Most entries of a bitmap's table, and most bytes of a bitmap.
_MAX_TABLE_ENTRIES = 0x8000000
_MAX_BYTES = 0x20000000


class BitmapFlags(enum.IntFlag):
    """Flags of a stored bitmap."""

    IN_USE = 1
    AUTO = 2


# A plain number: the inverse of a set of flags has only flags that have names.
_KNOWN_FLAGS = int(BitmapFlags.IN_USE | BitmapFlags.AUTO)


@attrs.frozen(kw_only=True)
class Entry:
    """A bitmap that the image stores."""

    name: str
    granularity_bits: int
    #: Where its table is, in bytes, and the table's entries.
    table_offset: int
    table_entries: int
    flags: BitmapFlags

    @property
    def granularity(self) -> int:
        """Bytes that a bit stands for."""
        return 1 << self.granularity_bits

    @property
    def in_use(self) -> bool:
        """Whether it was not stored properly."""
        return bool(self.flags & BitmapFlags.IN_USE)

    @property
    def recording(self) -> bool:
        """Whether it records writes."""
        return bool(self.flags & BitmapFlags.AUTO)

    def pack(self) -> bytes:
        """The entry as it is in the directory."""
        name = os.fsencode(self.name)
        fixed = _ENTRY.pack(
            self.table_offset,
            self.table_entries,
            self.flags,
            _DIRTY_TRACKING,
            self.granularity_bits,
            len(name),
            0,
        )
        return (fixed + name).ljust(_entry_bytes(len(name)), b"\0")


def _entry_bytes(name: int, extra: int = 0) -> int:
    return -(-(_ENTRY.size + name + extra) // 8) * 8


def build_directory(entries: list[Entry]) -> bytes:
    """The directory of these bitmaps."""
    return b"".join(entry.pack() for entry in entries)


def parse_directory(data: bytes, count: int, cluster_size: int, disk: int) -> list[Entry]:
    """The ``count`` bitmaps in a directory, of an image that shows ``disk`` bytes.

    :raises InvalidOption: with QEMU's text.
    """
    entries: list[Entry] = []
    at = 0
    while at < len(data):
        if at + _ENTRY.size > len(data):
            raise InvalidOption("Broken bitmap directory")
        if len(entries) == count:
            raise InvalidOption("More bitmaps found than specified in header extension")
        fields = _ENTRY.unpack_from(data, at)
        name_bytes, extra = fields[5:]
        end = at + _entry_bytes(name_bytes, extra)
        if end > len(data):
            raise InvalidOption("Broken bitmap directory")
        if extra:
            raise InvalidOption("Bitmap extra data is not supported")
        name = data[at + _ENTRY.size : at + _ENTRY.size + name_bytes]
        entries.append(_checked(fields, name, cluster_size, disk))
        at = end
    if len(entries) != count:
        raise InvalidOption("Less bitmaps found than specified in header extension")
    return entries


def _checked(fields: tuple[int, ...], name: bytes, cluster_size: int, disk: int) -> Entry:
    offset, entries, flags, kind, bits, *_ = fields
    shown = os.fsdecode(name.partition(b"\0")[0])
    good = (
        0 < entries <= _MAX_TABLE_ENTRIES
        and offset
        and offset % cluster_size == 0
        and offset < 1 << 63
        and _MIN_GRANULARITY_BITS <= bits <= _MAX_GRANULARITY_BITS
        and not flags & ~_KNOWN_FLAGS
        and 0 < len(name) <= _MAX_NAME
        and kind == _DIRTY_TRACKING
        and entries * cluster_size <= _MAX_BYTES
        and (flags & BitmapFlags.IN_USE or disk <= entries * cluster_size * 8 << bits)
    )
    if not good:
        raise InvalidOption(f"Bitmap '{shown}' doesn't satisfy the constraints")
    return Entry(
        name=shown,
        granularity_bits=bits,
        table_offset=offset,
        table_entries=entries,
        flags=BitmapFlags(flags),
    )


def check_constraints(name: str, granularity: int, cluster_size: int, disk: int) -> None:
    """Refuse a new bitmap that the format could not store.

    :raises InvalidOption: with QEMU's text.
    """
    bits = granularity.bit_length() - 1
    if bits > _MAX_GRANULARITY_BITS:
        raise InvalidOption(f"Granularity exceeds maximum ({1 << _MAX_GRANULARITY_BITS} bytes)")
    if bits < _MIN_GRANULARITY_BITS:
        raise InvalidOption(f"Granularity is under minimum ({1 << _MIN_GRANULARITY_BITS} bytes)")
    if disk > _MAX_BYTES << bits or disk > _MAX_TABLE_ENTRIES * cluster_size << bits:
        raise InvalidOption("Too much space will be occupied by the bitmap. Use larger granularity")
    if len(os.fsencode(name)) > _MAX_NAME:
        raise InvalidOption(f"Name length exceeds maximum ({_MAX_NAME} characters)")
