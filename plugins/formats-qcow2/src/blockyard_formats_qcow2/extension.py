# SPDX-License-Identifier: Apache-2.0
"""The header's extensions, and the backing file's name behind them.

docs/interop/qcow2.rst, sections "Header extensions" and following.  Bytes may be
anybody's; names are decoded as file names are, so that any bytes survive.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import attrs

from blockyard.errors import InvalidOption, Unsupported, from_errno
from blockyard_formats_qcow2.header import (
    KNOWN_INCOMPATIBLE,
    Autoclear,
    Crypt,
    Header,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BitmapsExtension", "Extensions", "build", "parse", "refuse_unknown_features"]

END = 0
BACKING_FORMAT = 0xE2792ACA
FEATURE_TABLE = 0x6803F857
BITMAPS = 0x23852875
CRYPTO = 0x0537BE77
DATA_FILE = 0x44415441

#: A backing format's name is shorter than this.
MAX_FORMAT = 16
MAX_BACKING_NAME = 1023
MAX_BITMAPS = 65535
MAX_DIRECTORY_BYTES = 1024 * MAX_BITMAPS

_HEAD = struct.Struct(">II")
_BITMAPS = struct.Struct(">IIQQ")
_CRYPTO = struct.Struct(">QQ")
_FEATURE = struct.Struct(">BB46s")
_ENOSPC = 28
#: In smaller clusters the names of features would take the place of more useful things.
_ROOM_FOR_FEATURES = 8192

#: Kind (0 incompatible, 1 compatible, 2 autoclear), bit, name: as QEMU writes them.
FEATURES = (
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
)


@attrs.frozen(kw_only=True)
class BitmapsExtension:
    """Where the directory of stored bitmaps is; bytes."""

    count: int
    directory_offset: int
    directory_size: int


@attrs.frozen(kw_only=True)
class Extensions:
    """What the extensions say, and the backing file's name."""

    backing_format: str | None = None
    backing_file: str | None = None
    data_file: str | None = None
    bitmaps: BitmapsExtension | None = None
    #: There was a bitmaps extension that its autoclear bit does not vouch for.
    stale_bitmaps: bool = False
    #: Offset and length of the LUKS header, in bytes.
    crypto: tuple[int, int] | None = None
    #: Type and data of all others, in their order.
    unknown: tuple[tuple[int, bytes], ...] = ()


# -- reading


def refuse_unknown_features(header: Header, data: bytes) -> None:
    """Refuse incompatible features that are not known, by the names the image gives.

    :raises Unsupported: with QEMU's text.
    """
    missing = header.incompatible & ~KNOWN_INCOMPATIBLE
    if not missing:
        return
    words = []
    for bit, name in _feature_names(header, data):
        if missing >> bit & 1:
            words.append(name)
            missing &= ~(1 << bit)
    if missing:
        words.append(f"Unknown incompatible feature: {missing:x}")
    raise Unsupported(f"Unsupported qcow2 feature(s): {', '.join(words)}")


def _feature_names(header: Header, data: bytes) -> Iterator[tuple[int, str]]:
    """Names of incompatible features: of a table that is bad, as far as it is good."""
    table = b""
    try:
        for kind, content in _walk(header, data):
            if kind == FEATURE_TABLE:
                table = content
    except InvalidOption:
        pass
    # The last name may end early: QEMU takes the rest for zeroes.
    table += bytes(-len(table) % _FEATURE.size)
    for kind, bit, name in _FEATURE.iter_unpack(table):
        if kind == 0 and bit < 64 and name[:1] != b"\0":
            yield bit, os.fsdecode(name.partition(b"\0")[0])


def _walk(header: Header, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and data of each extension; what lies behind the file's end is zeroes."""
    at, end = header.length, header.extensions_end
    while at < end:
        kind, length = _HEAD.unpack(data[at : at + 8].ljust(8, b"\0"))
        at += 8
        if at > end or length > end - at:
            raise InvalidOption("Header extension too large")
        if kind == END:
            return
        yield kind, data[at : at + length].ljust(length, b"\0")
        at += -(-length // 8) * 8


def parse(header: Header, data: bytes) -> Extensions:
    """The extensions in the first cluster ``data``; what is missing of it is zeroes.

    :raises InvalidOption: with QEMU's text.
    """
    found: dict[str, Any] = {}
    unknown = []
    for kind, content in _walk(header, data):
        if kind == BACKING_FORMAT:
            found["backing_format"] = _backing_format(content)
        elif kind == DATA_FILE:
            found["data_file"] = _text(content)
        elif kind == CRYPTO:
            found["crypto"] = _crypto(header, content)
        elif kind == BITMAPS:
            found |= _bitmaps(header, content)
        elif kind != FEATURE_TABLE:
            unknown.append((kind, content))
    return Extensions(**found, unknown=tuple(unknown))


def backing_name(header: Header, data: bytes) -> str | None:
    """The backing file's name, or None.

    :raises InvalidOption: with QEMU's text, if it is too long.
    """
    if not header.backing_offset:
        return None
    limit = min(MAX_BACKING_NAME, header.cluster_size - header.backing_offset)
    if header.backing_size > limit:
        raise InvalidOption("Backing file name too long")
    end = header.backing_offset + header.backing_size
    return _text(data[header.backing_offset : end]) or None


def _text(content: bytes) -> str:
    return os.fsdecode(content.partition(b"\0")[0])


def _backing_format(content: bytes) -> str:
    if len(content) >= MAX_FORMAT:
        raise InvalidOption(
            f"ERROR: ext_backing_format: len={len(content)} too large (>={MAX_FORMAT})"
        )
    return _text(content)


def _crypto(header: Header, content: bytes) -> tuple[int, int]:
    if header.crypt_method != Crypt.LUKS:
        raise InvalidOption("CRYPTO header extension only expected with LUKS encryption method")
    if len(content) != _CRYPTO.size:
        raise InvalidOption(
            f"CRYPTO header extension size {len(content)}, but expected size {_CRYPTO.size}"
        )
    offset, length = _CRYPTO.unpack(content)
    if offset % header.cluster_size:
        raise InvalidOption(
            f"Encryption header offset '{offset}' is not a multiple of cluster size "
            f"'{header.cluster_size}'"
        )
    return offset, length


def _bitmaps(header: Header, content: bytes) -> dict[str, Any]:
    if len(content) != _BITMAPS.size:
        raise InvalidOption("bitmaps_ext: Invalid extension length")
    if not header.autoclear & Autoclear.BITMAPS:
        return {"stale_bitmaps": True}
    count, reserved, size, offset = _BITMAPS.unpack(content)
    if reserved:
        raise InvalidOption("bitmaps_ext: Reserved field is not zero")
    if count > MAX_BITMAPS:
        raise InvalidOption(
            f"bitmaps_ext: Image has {count} bitmaps, exceeding the QEMU supported maximum of "
            f"{MAX_BITMAPS}"
        )
    if count == 0:
        raise InvalidOption("found bitmaps extension with zero bitmaps")
    if offset % header.cluster_size:
        raise InvalidOption("bitmaps_ext: invalid bitmap directory offset")
    if size > MAX_DIRECTORY_BYTES:
        raise InvalidOption(
            f"bitmaps_ext: bitmap directory size ({size}) exceeds the maximum supported size "
            f"({MAX_DIRECTORY_BYTES})"
        )
    bitmaps = BitmapsExtension(count=count, directory_offset=offset, directory_size=size)
    return {"bitmaps": bitmaps}


# -- writing


def build(header: Header, extensions: Extensions) -> bytes:
    """The header with its extensions and the backing file's name: at most one cluster.

    The fields of the backing file's name in ``header`` are not looked at.

    :raises ImageIOError: ENOSPC if it does not fit.
    """
    parts = b"".join(_pack(kind, content) for kind, content in _to_write(header, extensions))
    start = len(header.pack())
    name = os.fsencode(extensions.backing_file or "")
    end = start + len(parts) + _HEAD.size
    header = attrs.evolve(
        header, backing_offset=end if name else 0, backing_size=len(name) if name else 0
    )
    whole = header.pack() + parts + _HEAD.pack(END, 0) + name
    if len(whole) > header.cluster_size:
        raise from_errno(_ENOSPC)
    return whole


def _to_write(header: Header, extensions: Extensions) -> Iterator[tuple[int, bytes]]:
    # QEMU's order.
    if extensions.backing_format:
        yield BACKING_FORMAT, os.fsencode(extensions.backing_format)
    if header.has_data_file and extensions.data_file:
        yield DATA_FILE, os.fsencode(extensions.data_file)
    if extensions.crypto:
        yield CRYPTO, _CRYPTO.pack(*extensions.crypto)
    if header.version >= 3 and header.cluster_size >= _ROOM_FOR_FEATURES:
        yield FEATURE_TABLE, b"".join(_FEATURE.pack(k, b, n.encode()) for k, b, n in FEATURES)
    if extensions.bitmaps:
        bitmaps = extensions.bitmaps
        yield (
            BITMAPS,
            _BITMAPS.pack(bitmaps.count, 0, bitmaps.directory_size, bitmaps.directory_offset),
        )
    yield from extensions.unknown


def _pack(kind: int, content: bytes) -> bytes:
    return _HEAD.pack(kind, len(content)) + content.ljust(-(-len(content) // 8) * 8, b"\0")
