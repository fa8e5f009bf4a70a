# SPDX-License-Identifier: Apache-2.0
"""Options of the filters, and their declarations."""

from __future__ import annotations

from blockyard.node import ChildSpec, DriverType
from blockyard.permission import Role
from blockyard.schema.block import BlockdevRef
from blockyard.schema.blockgraph import BlockPermission
from blockyard.schema.declare import Int32, Uint32, Uint64, member, struct
from blockyard_filters_debug.events import BlkdebugEvent, BlkdebugIOType
from blockyard_filters_debug.names import parse_blkdebug, parse_blkverify

__all__ = [
    "BLKDEBUG",
    "BLKLOGWRITES",
    "BLKVERIFY",
    "BlkdebugInjectErrorOptions",
    "BlkdebugSetStateOptions",
    "BlockdevOptionsBlkdebug",
    "BlockdevOptionsBlklogwrites",
    "BlockdevOptionsBlkverify",
]


@struct
class BlkdebugInjectErrorOptions:
    """An error for requests that come after an event.

    event: what makes the rule hold.
    state: the state that blkdebug has to be in; 0 for any (0).
    iotype: the kind of request (all but block-status).
    errno: the error; 0 for none, if only the delay matters (5, EIO).
    delay-ns: nanoseconds that the request takes longer (0).
    sector: of 512 bytes, that the request has to touch; -1 for any (-1).
    once: whether the rule goes when a request has met it (false).
    immediately: whether the request fails at once rather than a little later (false).
    """

    event: BlkdebugEvent
    state: int | None = None
    iotype: BlkdebugIOType | None = None
    errno: int | None = None
    delay_ns: int | None = None
    sector: int | None = None
    once: bool | None = None
    immediately: bool | None = None


@struct
class BlkdebugSetStateOptions:
    """A new state of blkdebug, at an event.

    event: what makes it so.
    state: the state that blkdebug has to be in; 0 for any (0).
    new_state: the state from then on.
    """

    event: BlkdebugEvent
    state: int | None = None
    new_state: int = member(name="new_state")


@struct
class BlockdevOptionsBlkdebug:
    """A filter that injects errors and stops requests.

    image: the node under it.
    config: a file with more rules, sections [inject-error] and [set-state].
    align: the alignment of requests that the node pretends to need, in bytes (1).
    max-transfer: bytes of the largest read or write (no limit).
    opt-write-zero: preferred alignment of write-zeroes requests, in bytes.
    max-write-zero: bytes of the largest write-zeroes request (no limit).
    opt-discard: preferred alignment of discards, in bytes.
    max-discard: bytes of the largest discard (no limit).
    inject-error: errors to inject.
    set-state: changes of state.
    take-child-perms: permissions to take on image besides those that are needed.
    unshare-child-perms: permissions on image not to share with others.
    """

    image: BlockdevRef
    config: str | None = None
    align: int | None = None
    max_transfer: Int32 | None = None
    opt_write_zero: Int32 | None = None
    max_write_zero: Int32 | None = None
    opt_discard: Int32 | None = None
    max_discard: Int32 | None = None
    inject_error: list[BlkdebugInjectErrorOptions] | None = None
    set_state: list[BlkdebugSetStateOptions] | None = None
    take_child_perms: list[BlockPermission] | None = None
    unshare_child_perms: list[BlockPermission] | None = None


BLKDEBUG = DriverType(
    name="blkdebug",
    kind="filter",
    options=BlockdevOptionsBlkdebug,
    implementation="blockyard_filters_debug.blkdebug:BlkdebugDriver",
    children=(ChildSpec(name="image", role=Role.FILTER),),
    prefixes=("blkdebug",),
    parse_filename=parse_blkdebug,
)


@struct
class BlockdevOptionsBlkverify:
    """A filter that compares a disk with a raw copy of it.

    test: the disk under test.
    raw: the copy, which is believed.
    """

    test: BlockdevRef
    raw: BlockdevRef


BLKVERIFY = DriverType(
    name="blkverify",
    kind="filter",
    options=BlockdevOptionsBlkverify,
    implementation="blockyard_filters_debug.blkverify:BlkverifyDriver",
    children=(
        ChildSpec(name="raw", role=Role.FILTER),
        ChildSpec(name="test", role=Role.DATA),
    ),
    prefixes=("blkverify",),
    parse_filename=parse_blkverify,
)


@struct
class BlockdevOptionsBlklogwrites:
    """A filter that logs what changes a disk.

    file: the disk.
    log: what the log is written to.
    log-sector-size: bytes of the log's sectors; requests are aligned to them (512).
    log-append: go on with the log that is there (false).
    log-super-update-interval: entries after which the log's superblock is written (4096).
    """

    file: BlockdevRef
    log: BlockdevRef
    log_sector_size: Uint32 | None = None
    log_append: bool | None = None
    log_super_update_interval: Uint64 | None = None


BLKLOGWRITES = DriverType(
    name="blklogwrites",
    kind="filter",
    options=BlockdevOptionsBlklogwrites,
    implementation="blockyard_filters_debug.blklogwrites:BlklogwritesDriver",
    children=(
        ChildSpec(name="file", role=Role.FILTER),
        ChildSpec(name="log", role=Role.METADATA),
    ),
)
