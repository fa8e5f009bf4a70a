# SPDX-License-Identifier: Apache-2.0
"""What the options of a new image come to, before anything is written."""

from __future__ import annotations

from typing import Any

import attrs

from blockyard.errors import InvalidOption
from blockyard_formats_qcow2.extension import Extensions
from blockyard_formats_qcow2.header import (
    LENGTH_V2,
    LENGTH_WRITTEN,
    MAX_CLUSTER_BITS,
    MIN_CLUSTER_BITS,
    SUBCLUSTERS,
    Autoclear,
    Compatible,
    Crypt,
    Header,
    Incompatible,
)

__all__ = ["Plan", "plan_for"]

_SECTOR = 512
_DEFAULT_CLUSTER = 65536
_USE_V3 = "(use version=v3 or greater)"


@attrs.frozen(kw_only=True)
class Plan:
    """A new image."""

    header: Header
    extensions: Extensions
    #: ``off``, ``metadata``, ``falloc`` or ``full``.
    preallocation: str
    #: QCryptoBlockCreateOptions, or None.
    encrypt: Any


def plan_for(options: Any) -> Plan:
    """The image that BlockdevCreateOptionsQcow2 describe.

    :raises InvalidOption: with QEMU's text, for the first thing that is wrong.
    """
    version = 2 if str(options.version or "v3") == "v2" else 3
    if options.size % _SECTOR:
        raise InvalidOption(f"Image size must be a multiple of {_SECTOR} bytes")
    bits = _cluster_bits(options, version)
    preallocation = _preallocation(options)
    if options.backing_fmt is not None and options.backing_file is None:
        raise InvalidOption("Backing format cannot be used without backing file")
    if options.lazy_refcounts and version < 3:
        raise InvalidOption(
            f"Lazy refcounts only supported with compatibility level 1.1 and above {_USE_V3}"
        )
    order = _refcount_order(options, version)
    _check_data_file(options, version)
    compression = _compression(options, version)
    header = Header(
        version=version,
        cluster_bits=bits,
        size=options.size,
        crypt_method=_crypt_method(options),
        incompatible=_incompatible(options, compression),
        compatible=int(Compatible.LAZY_REFCOUNTS) if options.lazy_refcounts else 0,
        autoclear=int(Autoclear.DATA_FILE_RAW) if options.data_file_raw else 0,
        refcount_order=order,
        length=LENGTH_V2 if version < 3 else LENGTH_WRITTEN,
        compression=compression,
    )
    return Plan(
        header=header,
        extensions=Extensions(
            backing_file=options.backing_file,
            backing_format=str(options.backing_fmt) if options.backing_fmt else None,
        ),
        preallocation=preallocation,
        encrypt=options.encrypt,
    )


def _cluster_bits(options: Any, version: int) -> int:
    size = _DEFAULT_CLUSTER if options.cluster_size is None else options.cluster_size
    if options.extended_l2 and version < 3:
        raise InvalidOption(
            "Extended L2 entries are only supported with compatibility level 1.1 and above "
            + _USE_V3
        )
    bits = size.bit_length() - 1
    if not MIN_CLUSTER_BITS <= bits <= MAX_CLUSTER_BITS or size != 1 << bits:
        raise InvalidOption(
            f"Cluster size must be a power of two between {1 << MIN_CLUSTER_BITS} and "
            f"{1 << (MAX_CLUSTER_BITS - 10)}k"
        )
    least = SUBCLUSTERS << MIN_CLUSTER_BITS
    if options.extended_l2 and size < least:
        raise InvalidOption(
            f"Extended L2 entries are only supported with cluster sizes of at least {least} bytes"
        )
    return int(bits)


def _preallocation(options: Any) -> str:
    said = str(options.preallocation or "off")
    if options.backing_file is not None and said != "off" and not options.extended_l2:
        raise InvalidOption(
            "Backing file and preallocation can only be used at the same time if extended_l2 is on"
        )
    # The raw file shows the disk only where the tables say so from the start.
    return "metadata" if said == "off" and options.data_file_raw else said


def _refcount_order(options: Any, version: int) -> int:
    bits = 16 if options.refcount_bits is None else options.refcount_bits
    if not 0 < bits <= 64 or bits & (bits - 1):
        raise InvalidOption("Refcount width must be a power of two and may not exceed 64 bits")
    if version < 3 and bits != 16:
        raise InvalidOption(
            "Different refcount widths than 16 bits require compatibility level 1.1 or above "
            + _USE_V3
        )
    return int(bits.bit_length() - 1)


def _check_data_file(options: Any, version: int) -> None:
    if options.data_file_raw and options.data_file is None:
        raise InvalidOption("data-file-raw requires data-file")
    if options.data_file_raw and options.backing_file is not None:
        raise InvalidOption("Backing file and data-file-raw cannot be used at the same time")
    if options.data_file is not None and version < 3:
        raise InvalidOption(
            "External data files are only supported with compatibility level 1.1 and above "
            + _USE_V3
        )


def _compression(options: Any, version: int) -> int:
    zstd = str(options.compression_type or "zlib") == "zstd"
    if zstd and version < 3:
        raise InvalidOption(
            "Non-zlib compression type is only supported with compatibility level 1.1 and above "
            + _USE_V3
        )
    return int(zstd)


def _incompatible(options: Any, compression: int) -> int:
    bits = Incompatible(0)
    if options.data_file is not None:
        bits |= Incompatible.DATA_FILE
    if options.extended_l2:
        bits |= Incompatible.EXTENDED_L2
    if compression:
        bits |= Incompatible.COMPRESSION
    return int(bits)


def _crypt_method(options: Any) -> int:
    if options.encrypt is None:
        return Crypt.NONE
    return Crypt.LUKS if str(options.encrypt.format) == "luks" else Crypt.AES
