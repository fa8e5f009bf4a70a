# SPDX-License-Identifier: Apache-2.0
"""What query-block and query-named-block-nodes tell of a node and its image."""

from __future__ import annotations

from typing import Annotated, Any

from blockyard.schema.block import BlockdevDetectZeroesOptions
from blockyard.schema.declare import (
    QEnum,
    Size,
    Uint32,
    branches,
    enum,
    member,
    open_enum,
    struct,
    union,
)

__all__ = [
    "BlockDeviceInfo",
    "BlockDeviceIoStatus",
    "BlockDirtyInfo",
    "BlockInfo",
    "BlockLimitsInfo",
    "BlockNodeInfo",
    "BlockdevCacheInfo",
    "BlockdevChild",
    "ImageInfo",
    "ImageInfoSpecific",
    "ImageInfoSpecificFile",
    "ImageInfoSpecificFileWrapper",
    "SnapshotInfo",
]


@struct
class SnapshotInfo:
    """An internal snapshot.

    id: its number.
    name: its name.
    vm-state-size: bytes of saved machine state.
    date-sec: when it was made, seconds since 1970 (UTC).
    date-nsec: the nanoseconds to add.
    vm-clock-sec: the machine's own time then, in seconds.
    vm-clock-nsec: the nanoseconds to add.
    icount: instructions the machine had run.
    """

    id: str
    name: str
    vm_state_size: int
    date_sec: int
    date_nsec: int
    vm_clock_sec: int
    vm_clock_nsec: int
    icount: int | None = None


@struct
class ImageInfoSpecificFile:
    """What a file tells beyond the common.

    extent-size-hint: in bytes; absent when the file system has none.
    """

    extent_size_hint: Size | None = None


@struct
class ImageInfoSpecificFileWrapper:
    """The ``data`` of a file's specific information."""

    data: ImageInfoSpecificFile


#: A format that tells more of an image than the common; formats bring their own.
ImageInfoSpecificKind = Annotated[
    str, open_enum("ImageInfoSpecificKind", "ImageInfoSpecific", fixed=("file",))
]


@union("type")
class ImageInfoSpecific:
    """What the driver tells of an image beyond the common.

    type: the driver.
    """

    type: ImageInfoSpecificKind
    u: Any = branches(fixed={"file": ImageInfoSpecificFileWrapper}, source="ImageInfoSpecific")


@struct
class BlockLimitsInfo:
    """A node's limits on requests, in bytes where not said otherwise; absent is no limit.

    request-alignment: of offset and length.
    max-discard: longest discard.
    discard-alignment: best alignment of a discard.
    max-write-zeroes: longest write-zeroes.
    write-zeroes-alignment: best alignment of a write-zeroes.
    opt-transfer: best length of a transfer.
    max-transfer: longest transfer.
    max-hw-transfer: longest transfer that bypasses the host's kernel.
    max-iov: most pieces of memory in a request.
    max-hw-iov: the same of one that bypasses the kernel.
    min-mem-alignment: needed of memory.
    opt-mem-alignment: best of memory.
    """

    request_alignment: Uint32
    max_discard: int | None = None
    discard_alignment: Uint32 | None = None
    max_write_zeroes: int | None = None
    write_zeroes_alignment: Uint32 | None = None
    opt_transfer: Uint32 | None = None
    max_transfer: Uint32 | None = None
    max_hw_transfer: Uint32 | None = None
    max_iov: int
    max_hw_iov: int | None = None
    min_mem_alignment: Size
    opt_mem_alignment: Size


@struct
class BlockNodeInfo:
    """An image, without its backing chain.

    filename: its name, or ``json:`` with its options.
    format: the driver.
    dirty-flag: it was not closed properly.
    actual-size: bytes it takes on its host.
    virtual-size: bytes it shows.
    cluster-size: bytes of a cluster.
    encrypted: it is.
    compressed: it is.
    backing-filename: the backing file as the image names it.
    full-backing-filename: the same from here.
    backing-filename-format: its format, as the image records it.
    snapshots: the internal snapshots.
    limits: the limits on requests.
    format-specific: what the driver adds.
    """

    filename: str
    format: str
    dirty_flag: bool | None = None
    actual_size: int | None = None
    virtual_size: int
    cluster_size: int | None = None
    encrypted: bool | None = None
    compressed: bool | None = None
    backing_filename: str | None = None
    full_backing_filename: str | None = None
    backing_filename_format: str | None = None
    snapshots: list[SnapshotInfo] | None = None
    limits: BlockLimitsInfo | None = None
    format_specific: ImageInfoSpecific | None = None


@struct
class ImageInfo(BlockNodeInfo):
    """An image with its backing chain."""

    backing_image: ImageInfo | None = None


@struct
class BlockdevCacheInfo:
    """How a node uses the host's page cache.

    writeback: writes are done when the cache has them.
    direct: it is bypassed.
    no-flush: flush requests are ignored.
    """

    writeback: bool
    direct: bool
    no_flush: bool


@struct
class BlockDirtyInfo:
    """A dirty bitmap.

    name: absent of a nameless one.
    count: dirty bytes.
    granularity: bytes a bit stands for.
    recording: writes are recorded.
    busy: a job or export uses it.
    persistent: it is kept in the image.
    inconsistent: the image was not closed properly, so that it can only be removed.
    """

    name: str | None = None
    count: int
    granularity: Uint32
    recording: bool
    busy: bool
    persistent: bool
    inconsistent: bool | None = None


@struct
class BlockdevChild:
    """An edge to a child.

    child: the edge's name.
    node-name: the child.
    """

    child: str
    node_name: str


@struct(dashes=False)
class BlockDeviceInfo:
    """A node.

    The limits ``bps*`` and ``iops*`` are the throttle group's, ``*_length`` in seconds.

    file: its file name.
    node-name: its name.
    ro: it refuses writes.
    drv: its driver.
    backing_file: the backing file's name.
    backing_file_depth: files in the backing chain.
    children: its edges.
    active: it may use its image.
    encrypted: its image is.
    detect_zeroes: what it does of writes of zeroes.
    image: its image.
    group: its throttle group.
    cache: how it uses the page cache.
    write_threshold: the offset whose writing is told, in bytes; 0 is none.
    dirty-bitmaps: its bitmaps.
    """

    file: str
    node_name: str = member(name="node-name")
    ro: bool
    drv: str
    backing_file: str | None = None
    backing_file_depth: int
    children: list[BlockdevChild]
    active: bool
    encrypted: bool
    detect_zeroes: BlockdevDetectZeroesOptions
    bps: int
    bps_rd: int
    bps_wr: int
    iops: int
    iops_rd: int
    iops_wr: int
    image: ImageInfo
    bps_max: int | None = None
    bps_rd_max: int | None = None
    bps_wr_max: int | None = None
    iops_max: int | None = None
    iops_rd_max: int | None = None
    iops_wr_max: int | None = None
    bps_max_length: int | None = None
    bps_rd_max_length: int | None = None
    bps_wr_max_length: int | None = None
    iops_max_length: int | None = None
    iops_rd_max_length: int | None = None
    iops_wr_max_length: int | None = None
    iops_size: int | None = None
    group: str | None = None
    cache: BlockdevCacheInfo
    write_threshold: int
    dirty_bitmaps: list[BlockDirtyInfo] | None = member(default=None, name="dirty-bitmaps")


@enum
class BlockDeviceIoStatus(QEnum):
    """How requests of a guest's device fared."""

    OK = "ok"
    FAILED = "failed"
    NOSPACE = "nospace"


@struct
class BlockInfo:
    """A guest's block device; a storage daemon has none.

    device: its name.
    qdev: its path among the machine's devices.
    type: always ``unknown``.
    removable: its medium can be removed.
    locked: the guest locked its medium in.
    inserted: the node of its medium.
    tray_open: its tray is.
    io-status: how its requests fared.
    """

    device: str
    qdev: str | None = None
    type: str
    removable: bool
    locked: bool
    inserted: BlockDeviceInfo | None = None
    tray_open: bool | None = member(default=None, name="tray_open")
    io_status: BlockDeviceIoStatus | None = None
