# SPDX-License-Identifier: Apache-2.0
"""The header's fixed fields: read, checked, and put together again.

Everything here is arithmetic over bytes, which may be anybody's.  Sections in
comments are those of QEMU's docs/interop/qcow2.rst.
"""

from __future__ import annotations

import enum
import struct

import attrs

from blockyard.errors import BlockyardError, InvalidOption, Unsupported, from_errno
from blockyard.request import MAX_LENGTH

__all__ = [
    "Autoclear",
    "Compatible",
    "Crypt",
    "Header",
    "Incompatible",
    "check_fields",
    "parse_fields",
]

MAGIC = b"QFI\xfb"
MIN_CLUSTER_BITS = 9
MAX_CLUSTER_BITS = 21
SUBCLUSTERS = 32
MAX_L1_BYTES = 32 << 20
MAX_REFTABLE_BYTES = 8 << 20
MAX_SNAPSHOTS_BYTES = 65536 * 40
_INT64_MAX = (1 << 63) - 1
_INT32_MAX = (1 << 31) - 1
_EFBIG = 27
_EACCES = 13

_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
LENGTH_V2 = _V2.size
LENGTH_V3 = _V2.size + _V3.size
#: With the compression type and its padding, as headers are written.
LENGTH_WRITTEN = LENGTH_V3 + 8


class Incompatible(enum.IntFlag):
    """Features that whoever does not know them must not open (section "Header")."""

    DIRTY = 1
    CORRUPT = 2
    DATA_FILE = 4
    COMPRESSION = 8
    EXTENDED_L2 = 16


class Compatible(enum.IntFlag):
    """Features that may be ignored."""

    LAZY_REFCOUNTS = 1


class Autoclear(enum.IntFlag):
    """Features that whoever writes without knowing them takes away."""

    BITMAPS = 1
    DATA_FILE_RAW = 2


KNOWN_INCOMPATIBLE = 0x1F
KNOWN_AUTOCLEAR = 0x3


class Crypt(enum.IntEnum):
    """How the data is encrypted."""

    NONE = 0
    AES = 1
    LUKS = 2


@attrs.frozen(kw_only=True)
class Header:
    """The fixed fields, as they are in the file; counts, bytes and byte offsets."""

    version: int = 3
    backing_offset: int = 0
    backing_size: int = 0
    cluster_bits: int = 16
    size: int = 0
    crypt_method: int = 0
    l1_size: int = 0
    l1_offset: int = 0
    reftable_offset: int = 0
    reftable_clusters: int = 0
    snapshots: int = 0
    snapshots_offset: int = 0
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    length: int = LENGTH_WRITTEN
    #: 0 zlib, 1 zstd.
    compression: int = 0
    #: Fields behind those above, kept as found.
    unknown: bytes = b""

    @property
    def cluster_size(self) -> int:
        """Bytes."""
        return 1 << self.cluster_bits

    @property
    def l2_entry_bytes(self) -> int:
        """Bytes of an entry of an L2 table."""
        return 16 if self.incompatible & Incompatible.EXTENDED_L2 else 8

    @property
    def l1_covered(self) -> int:
        """Bytes of the disk that an L1 entry stands for."""
        return self.cluster_size // self.l2_entry_bytes * self.cluster_size

    @property
    def l1_needed(self) -> int:
        """L1 entries for the whole disk."""
        return -(-self.size // self.l1_covered)

    @property
    def refcount_bits(self) -> int:
        """Bits of a refcount."""
        return 1 << self.refcount_order

    @property
    def has_data_file(self) -> bool:
        """Whether the data is in a file of its own."""
        return bool(self.incompatible & Incompatible.DATA_FILE)

    @property
    def data_file_raw(self) -> bool:
        """Whether that file is a raw image of the disk."""
        return bool(self.autoclear & Autoclear.DATA_FILE_RAW)

    @property
    def extensions_end(self) -> int:
        """Where the header's extensions end at the latest."""
        return self.backing_offset or self.cluster_size

    def pack(self) -> bytes:
        """The fields as they are in the file; version 3 with the compression type."""
        fields = _V2.pack(
            MAGIC,
            self.version,
            self.backing_offset,
            self.backing_size,
            self.cluster_bits,
            self.size,
            self.crypt_method,
            self.l1_size,
            self.l1_offset,
            self.reftable_offset,
            self.reftable_clusters,
            self.snapshots,
            self.snapshots_offset,
        )
        if self.version < 3:
            return fields
        fields += _V3.pack(
            self.incompatible,
            self.compatible,
            self.autoclear,
            self.refcount_order,
            LENGTH_WRITTEN + len(self.unknown),
        )
        return fields + bytes([self.compression]).ljust(8, b"\0") + self.unknown


def cluster_bytes(start: bytes) -> int:
    """How much of the image its header may take: a cluster, judging by its first bytes.

    2 MiB at most; 0 if this is no header.
    """
    if len(start) < LENGTH_V2 or not start.startswith(MAGIC):
        return 0
    bits: int = _V2.unpack_from(start)[4]
    return 1 << bits if MIN_CLUSTER_BITS <= bits <= MAX_CLUSTER_BITS else 0


def parse_fields(data: bytes) -> Header:
    """The fields in an image's first bytes, checked as far as reading on needs it.

    ``data`` is the first cluster, or what the file has of it.

    :raises BlockyardError: with QEMU's text.
    """
    data = data.ljust(LENGTH_WRITTEN, b"\0")
    if not data.startswith(MAGIC):
        raise InvalidOption("Image is not in qcow2 format")
    (_, version, backing_offset, backing_size, cluster_bits, size, crypt, *tables) = (
        _V2.unpack_from(data)
    )
    if version not in (2, 3):
        raise Unsupported(f"Unsupported qcow2 version {version}")
    if not MIN_CLUSTER_BITS <= cluster_bits <= MAX_CLUSTER_BITS:
        raise InvalidOption(f"Unsupported cluster size: 2^{cluster_bits}")
    header = Header(
        version=version,
        backing_offset=backing_offset,
        backing_size=backing_size,
        cluster_bits=cluster_bits,
        size=size,
        crypt_method=crypt,
        l1_size=tables[0],
        l1_offset=tables[1],
        reftable_offset=tables[2],
        reftable_clusters=tables[3],
        snapshots=tables[4],
        snapshots_offset=tables[5],
        length=LENGTH_V2,
    )
    if version == 3:
        header = _with_v3(header, data)
    if header.length > header.cluster_size:
        raise InvalidOption("qcow2 header exceeds cluster size")
    if backing_offset > header.cluster_size:
        raise InvalidOption("Invalid backing file offset")
    return header


def _with_v3(header: Header, data: bytes) -> Header:
    incompatible, compatible, autoclear, order, length = _V3.unpack_from(data, LENGTH_V2)
    if length < LENGTH_V3:
        raise InvalidOption("qcow2 header too short")
    if length > header.cluster_size:
        raise InvalidOption("qcow2 header exceeds cluster size")
    return attrs.evolve(
        header,
        incompatible=incompatible,
        compatible=compatible,
        autoclear=autoclear,
        refcount_order=order,
        length=length,
        compression=data[LENGTH_V3] if length > LENGTH_V3 else 0,
        unknown=data.ljust(length, b"\0")[LENGTH_WRITTEN:length],
    )


def check_fields(header: Header, *, writable: bool, check: bool = False) -> None:
    """Refuse what cannot be worked with.

    Unknown incompatible features are the caller's to refuse first (they have names,
    see ``extension.py``).  ``check``: the image is opened to be repaired.

    :raises BlockyardError: with QEMU's text.
    """
    _check_features(header, writable=writable and not check)
    cluster = header.cluster_size
    if header.reftable_clusters == 0 and not check:
        raise InvalidOption("Image does not contain a reference count table")
    _check_table(
        header.reftable_offset,
        header.reftable_clusters * cluster,
        MAX_REFTABLE_BYTES,
        cluster,
        "Reference count table",
    )
    if not check:
        _check_table(
            header.snapshots_offset,
            header.snapshots * 40,
            MAX_SNAPSHOTS_BYTES,
            cluster,
            "Snapshot table",
        )
    _check_table(header.l1_offset, header.l1_size * 8, MAX_L1_BYTES, cluster, "Active L1 table")
    if header.size > (1 << 64) - header.l1_covered:
        # QEMU's sum does not fit; it is found to be too large in the end.
        return
    if header.l1_needed > _INT32_MAX:
        raise from_text("Image is too big", _EFBIG)
    if header.l1_size < header.l1_needed:
        raise InvalidOption("L1 table is too small")


def check_size(header: Header) -> None:
    """Refuse a disk that is longer than any node can be.

    :raises ImageIOError: with QEMU's text.
    """
    if header.size > MAX_LENGTH:
        raise from_errno(_EFBIG, "Could not refresh total sector count")


def check_compression(header: Header) -> None:
    """Refuse a compression type that is not known, or that the feature bits contradict.

    :raises BlockyardError: with QEMU's text.
    """
    if header.compression > 1:
        raise Unsupported(f"qcow2: unknown compression type: {header.compression}")
    announced = bool(header.incompatible & Incompatible.COMPRESSION)
    if announced != bool(header.compression):
        must = "must not" if announced else "must"
        raise InvalidOption(f"qcow2: Compression type incompatible feature bit {must} be set")


def _check_features(header: Header, *, writable: bool) -> None:
    if header.incompatible & Incompatible.CORRUPT and writable:
        raise from_text("qcow2: Image is corrupt; cannot be opened read/write", _EACCES)
    subclusters = SUBCLUSTERS if header.incompatible & Incompatible.EXTENDED_L2 else 1
    if header.cluster_size // subclusters < 1 << MIN_CLUSTER_BITS:
        raise InvalidOption(f"Unsupported subcluster size: {header.cluster_size // subclusters}")
    if header.refcount_order > 6:
        raise InvalidOption("Reference count entry width too large; may not exceed 64 bits")


def _check_table(offset: int, length: int, limit: int, cluster: int, name: str) -> None:
    if length > limit:
        raise from_text(f"{name} too large", _EFBIG)
    if offset > _INT64_MAX - length or offset % cluster:
        raise InvalidOption(f"{name} offset invalid")


def from_text(text: str, number: int) -> BlockyardError:
    """An error with QEMU's whole text and an errno."""
    error = from_errno(number)
    error.args = (text,)
    return error
