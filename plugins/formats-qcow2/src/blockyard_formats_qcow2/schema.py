# SPDX-License-Identifier: Apache-2.0
"""Options of qcow2, what is told of its images, and the driver's declaration."""

from __future__ import annotations

from typing import Annotated, Any

from blockyard.node import ChildSpec, DriverType
from blockyard.permission import Role
from blockyard.schema.block import (
    BlockdevDriver,
    BlockdevOptionsGenericFormat,
    BlockdevRef,
    BlockdevRefOrNull,
    PreallocMode,
)
from blockyard.schema.crypto import (
    QCryptoBlockAmendOptions,
    QCryptoBlockCreateOptions,
    QCryptoBlockInfoLUKS,
    QCryptoBlockOptionsLUKS,
    QCryptoBlockOptionsQCow,
)
from blockyard.schema.declare import (
    QEnum,
    Size,
    Uint32,
    alternate,
    branches,
    enum,
    member,
    struct,
    union,
)

__all__ = [
    "QCOW2",
    "BlockdevAmendOptionsQcow2",
    "BlockdevCreateOptionsQcow2",
    "BlockdevOptionsQcow2",
    "BlockdevQcow2Encryption",
    "BlockdevQcow2EncryptionFormat",
    "BlockdevQcow2Version",
    "ImageInfoSpecificQCow2",
    "ImageInfoSpecificQCow2Encryption",
    "Qcow2BitmapInfo",
    "Qcow2BitmapInfoFlags",
    "Qcow2CompressionType",
    "Qcow2OverlapCheckFlags",
    "Qcow2OverlapCheckMode",
]


# -- opening


@enum
class Qcow2OverlapCheckMode(QEnum):
    """Templates of overlap checks.

    none: no check; constant: those that need no metadata to be loaded; cached: those
    that need none but what is in memory; all: also those that read the disk.
    """

    NONE = "none"
    CONSTANT = "constant"
    CACHED = "cached"
    ALL = "all"


@struct
class Qcow2OverlapCheckFlags:
    """Which metadata writes are checked against, one by one.

    template: what holds for those that are left out (cached).
    main-header: the header.
    active-l1: the L1 table.
    active-l2: its L2 tables.
    refcount-table: the refcount table.
    refcount-block: refcount blocks.
    snapshot-table: the table of snapshots.
    inactive-l1: the snapshots' L1 tables.
    inactive-l2: their L2 tables.
    bitmap-directory: the directory of bitmaps.
    """

    template: Qcow2OverlapCheckMode | None = None
    main_header: bool | None = None
    active_l1: bool | None = None
    active_l2: bool | None = None
    refcount_table: bool | None = None
    refcount_block: bool | None = None
    snapshot_table: bool | None = None
    inactive_l1: bool | None = None
    inactive_l2: bool | None = None
    bitmap_directory: bool | None = None


Qcow2OverlapChecks = Annotated[
    Any,
    alternate(
        "Qcow2OverlapChecks",
        lambda: {"flags": Qcow2OverlapCheckFlags, "mode": Qcow2OverlapCheckMode},
    ),
]


@enum
class BlockdevQcow2EncryptionFormat(QEnum):
    """How images are encrypted; ``aes`` is for reading old ones."""

    AES = "aes"
    LUKS = "luks"


@union("format")
class BlockdevQcow2Encryption:
    """The key of an encrypted image.

    format: how it is encrypted; unsaid, the image's header tells.
    """

    format: BlockdevQcow2EncryptionFormat | None = member(default=None, unsaid=True)
    u: Any = branches(fixed={"aes": QCryptoBlockOptionsQCow, "luks": QCryptoBlockOptionsLUKS})


@struct
class BlockdevOptionsQcow2(BlockdevOptionsGenericFormat):
    """A qcow2 image.

    backing: the backing file instead of the one that the image names; null for none.
    lazy-refcounts: put refcount updates off (as the image says).
    pass-discard-request: clusters that a discard frees are discarded in the file (if the
        node's own discards are: discard=unmap).
    pass-discard-snapshot: those that a snapshot's deletion frees are (true).
    pass-discard-other: those that anything else frees are (false).
    discard-no-unref: clusters stay where they are when they are discarded (false).
    overlap-check: which metadata writes are checked against (cached).
    cache-size: most bytes of the caches of L2 tables and refcount blocks together.
    l2-cache-size: most bytes of the cache of L2 tables (32 MiB, or what the disk needs).
    l2-cache-entry-size: bytes loaded at a time, a power of two (64 KiB, or a cluster).
    refcount-cache-size: most bytes of the cache of refcount blocks (4 clusters).
    cache-clean-interval: seconds until unused tables are forgotten; 0 for never (600).
    encrypt: the key; needed for an encrypted image.
    data-file: the file of the data instead of the one that the image names.
    """

    backing: BlockdevRefOrNull | None = None
    lazy_refcounts: bool | None = None
    pass_discard_request: bool | None = None
    pass_discard_snapshot: bool | None = None
    pass_discard_other: bool | None = None
    discard_no_unref: bool | None = None
    overlap_check: Qcow2OverlapChecks | None = None
    cache_size: int | None = None
    l2_cache_size: int | None = None
    l2_cache_entry_size: int | None = None
    refcount_cache_size: int | None = None
    cache_clean_interval: int | None = None
    encrypt: BlockdevQcow2Encryption | None = None
    data_file: BlockdevRef | None = None


# -- creating and amending


@enum
class BlockdevQcow2Version(QEnum):
    """Versions of the format: v2 is ``compat=0.10``, v3 ``compat=1.1``."""

    V2 = "v2"
    V3 = "v3"


@enum
class Qcow2CompressionType(QEnum):
    """How clusters are compressed."""

    ZLIB = "zlib"
    ZSTD = "zstd"


@struct
class BlockdevCreateOptionsQcow2:
    """A qcow2 image to be made in a file that exists.

    file: the node of the file.
    data-file: the node of a second file, which holds the data.
    data-file-raw: that file is always a raw image of the disk (false).
    extended-l2: allocation is by subclusters (false).
    size: bytes of the disk.
    version: the format's version (v3).
    backing-file: the name of the backing file.
    backing-fmt: its format.
    encrypt: how the image is encrypted.
    cluster-size: bytes of a cluster (64 KiB).
    preallocation: what is allocated at once (off).
    lazy-refcounts: refcount updates may be put off (false).
    refcount-bits: bits of a refcount (16).
    compression-type: how clusters are compressed (zlib).
    """

    file: BlockdevRef
    data_file: BlockdevRef | None = None
    data_file_raw: bool | None = None
    extended_l2: bool | None = None
    size: Size
    version: BlockdevQcow2Version | None = None
    backing_file: str | None = None
    backing_fmt: BlockdevDriver | None = None
    encrypt: QCryptoBlockCreateOptions | None = None
    cluster_size: Size | None = None
    preallocation: PreallocMode | None = None
    lazy_refcounts: bool | None = None
    refcount_bits: int | None = None
    compression_type: Qcow2CompressionType | None = None


@struct
class BlockdevAmendOptionsQcow2:
    """What x-blockdev-amend changes of a qcow2 image.

    encrypt: changes to its encryption.
    """

    encrypt: QCryptoBlockAmendOptions | None = None


# -- information


@enum
class Qcow2BitmapInfoFlags(QEnum):
    """A stored bitmap's flags: it was not saved properly; it records writes."""

    IN_USE = "in-use"
    AUTO = "auto"


@struct
class Qcow2BitmapInfo:
    """A dirty bitmap that the image stores.

    name: its name.
    granularity: bytes that a bit stands for.
    flags: its flags.
    """

    name: str
    granularity: Uint32
    flags: list[Qcow2BitmapInfoFlags]


@union("format")
class ImageInfoSpecificQCow2Encryption:
    """How an image is encrypted.

    format: the kind of encryption.
    """

    format: BlockdevQcow2EncryptionFormat
    u: Any = branches(fixed={"aes": None, "luks": QCryptoBlockInfoLUKS})


@struct
class ImageInfoSpecificQCow2:
    """What a qcow2 image tells beyond the common.

    compat: the format's version, ``0.10`` or ``1.1``.
    data-file: the file of the data, as the image names it.
    data-file-raw: that file is always a raw image of the disk.
    extended-l2: allocation is by subclusters.
    lazy-refcounts: refcount updates may be put off.
    corrupt: the image was found damaged.
    refcount-bits: bits of a refcount.
    encrypt: how it is encrypted.
    bitmaps: the dirty bitmaps that it stores.
    compression-type: how clusters are compressed.
    """

    compat: str
    data_file: str | None = None
    data_file_raw: bool | None = None
    extended_l2: bool | None = None
    lazy_refcounts: bool | None = None
    corrupt: bool | None = None
    refcount_bits: int
    encrypt: ImageInfoSpecificQCow2Encryption | None = None
    bitmaps: list[Qcow2BitmapInfo] | None = None
    compression_type: Qcow2CompressionType


QCOW2 = DriverType(
    name="qcow2",
    kind="format",
    options=BlockdevOptionsQcow2,
    implementation="blockyard_formats_qcow2.driver:Qcow2Driver",
    create_options=BlockdevCreateOptionsQcow2,
    amend_options=BlockdevAmendOptionsQcow2,
    creation="blockyard_formats_qcow2.creation:QCOW2",
    compresses=True,
    image_info_type=ImageInfoSpecificQCow2,
    children=(
        ChildSpec(name="file"),
        ChildSpec(name="data-file", role=Role.DATA, optional=True),
        ChildSpec(name="backing", role=Role.COW, optional=True),
    ),
    mutable_options=(
        "lazy-refcounts",
        "pass-discard-request",
        "pass-discard-snapshot",
        "pass-discard-other",
        "discard-no-unref",
        "overlap-check",
        "overlap-check.template",
        "overlap-check.main-header",
        "overlap-check.active-l1",
        "overlap-check.active-l2",
        "overlap-check.refcount-table",
        "overlap-check.refcount-block",
        "overlap-check.snapshot-table",
        "overlap-check.inactive-l1",
        "overlap-check.inactive-l2",
        "overlap-check.bitmap-directory",
        "cache-size",
        "l2-cache-size",
        "l2-cache-entry-size",
        "refcount-cache-size",
        "cache-clean-interval",
    ),
    supports_backing=True,
)
