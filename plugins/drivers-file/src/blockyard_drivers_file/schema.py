# SPDX-License-Identifier: Apache-2.0
"""Options of the file drivers, and the drivers' declarations."""

from __future__ import annotations

from blockyard.node import DriverType
from blockyard.schema.block import OnOffAuto, PreallocMode
from blockyard.schema.declare import QEnum, Size, enum, member, struct

__all__ = [
    "FILE",
    "HOST_CDROM",
    "HOST_DEVICE",
    "BlockStatsSpecificFile",
    "BlockdevAioOptions",
    "BlockdevCreateOptionsFile",
    "BlockdevOptionsFile",
    "ImageInfoSpecificFile",
]


@enum
class BlockdevAioOptions(QEnum):
    """How requests reach the host's kernel."""

    THREADS = "threads"
    NATIVE = "native"
    IO_URING = "io_uring"


@struct(features=("dynamic-auto-read-only",))
class BlockdevOptionsFile:
    """A file or device of the host.

    filename: its path, taken literally; /dev/fdset/N is a descriptor of that set.
    pr-manager: the object that handles persistent reservations; there is none here.
    locking: whether the image is locked against other processes (auto).
    aio: threads: a pool of threads; native and io_uring: the loop's ring.  Left
        out, each request takes the faster of the two.
    aio-max-batch: with aio=native and io_uring, how many operations are handed to
        the kernel at once at most; the iothread's own aio-max-batch, where that is
        smaller; 0: as many as there are (0).
    drop-cache: whether cached pages are dropped when the node is activated (true).
    x-check-cache-dropped: whether it is checked that they are gone (false).
    """

    filename: str
    pr_manager: str | None = None
    locking: OnOffAuto | None = None
    aio: BlockdevAioOptions | None = None
    aio_max_batch: int | None = None
    drop_cache: bool | None = None
    x_check_cache_dropped: bool | None = member(default=None, features=("unstable",))


@struct
class BlockdevCreateOptionsFile:
    """A new image file.

    filename: its path; a file that exists is emptied.
    size: bytes.
    preallocation: off, falloc or full (off).
    nocow: switch off copy-on-write where the file system has it, as btrfs (false).
    extent-size-hint: extents' size where the file system can be told; 0: none (1 MiB).
    """

    filename: str
    size: Size
    preallocation: PreallocMode | None = None
    nocow: bool | None = None
    extent_size_hint: Size | None = None


@struct
class ImageInfoSpecificFile:
    """What the file system says of an image file.

    extent-size-hint: the hint that is set, if any.
    """

    extent_size_hint: Size | None = None


@struct
class BlockStatsSpecificFile:
    """How discards fared.

    discard-nb-ok: successful ones.
    discard-nb-failed: failed ones.
    discard-bytes-ok: the bytes that were discarded.
    """

    discard_nb_ok: int
    discard_nb_failed: int
    discard_bytes_ok: int


#: Options that a reopen may set back to their default by leaving them out.
_MUTABLE = ("x-check-cache-dropped",)

FILE = DriverType(
    name="file",
    kind="protocol",
    prefixes=("file",),
    options=BlockdevOptionsFile,
    implementation="blockyard_drivers_file.driver:FileDriver",
    create_options=BlockdevCreateOptionsFile,
    creation="blockyard_drivers_file.creation:FILE",
    mutable_options=_MUTABLE,
)

HOST_DEVICE = DriverType(
    name="host_device",
    kind="protocol",
    prefixes=("host_device",),
    options=BlockdevOptionsFile,
    implementation="blockyard_drivers_file.driver:HostDeviceDriver",
    creation="blockyard.creation:EXISTING",
    mutable_options=_MUTABLE,
)

HOST_CDROM = DriverType(
    name="host_cdrom",
    kind="protocol",
    prefixes=("host_cdrom",),
    options=BlockdevOptionsFile,
    implementation="blockyard_drivers_file.driver:HostCdromDriver",
    creation="blockyard.creation:EXISTING",
    mutable_options=_MUTABLE,
)
