# SPDX-License-Identifier: Apache-2.0
"""What query-blockstats tells."""

from __future__ import annotations

from typing import Any

from blockyard.schema.block import BlockdevDriver
from blockyard.schema.declare import Uint64, branches, struct, union

__all__ = [
    "BlockDeviceStats",
    "BlockDeviceTimedStats",
    "BlockLatencyHistogramInfo",
    "BlockStats",
    "BlockStatsSpecific",
    "BlockStatsSpecificFile",
]


@struct(dashes=False)
class BlockDeviceTimedStats:
    """Latencies (nanoseconds) and queue depths over an interval (seconds)."""

    interval_length: int
    min_rd_latency_ns: int
    max_rd_latency_ns: int
    avg_rd_latency_ns: int
    min_wr_latency_ns: int
    max_wr_latency_ns: int
    avg_wr_latency_ns: int
    min_zone_append_latency_ns: int
    max_zone_append_latency_ns: int
    avg_zone_append_latency_ns: int
    min_flush_latency_ns: int
    max_flush_latency_ns: int
    avg_flush_latency_ns: int
    avg_rd_queue_depth: float
    avg_wr_queue_depth: float
    avg_zone_append_queue_depth: float


@struct
class BlockLatencyHistogramInfo:
    """How many requests took how long.

    boundaries: the inner limits between bins, in nanoseconds.
    bins: requests; one more than boundaries.
    """

    boundaries: list[Uint64]
    bins: list[Uint64]


@struct(dashes=False)
class BlockDeviceStats:
    """Counters since the start; ``failed`` ones were tried, ``invalid`` ones were not.

    wr_highest_offset: the end of the furthest write, in bytes.
    *_merged: requests that were joined to others.
    idle_time_ns: since the last request; absent when there was none.
    account_invalid: invalid requests count in the latencies.
    account_failed: failed ones do.
    timed_stats: statistics of intervals.
    """

    rd_bytes: int
    wr_bytes: int
    zone_append_bytes: int
    unmap_bytes: int
    rd_operations: int
    wr_operations: int
    zone_append_operations: int
    flush_operations: int
    unmap_operations: int
    rd_total_time_ns: int
    wr_total_time_ns: int
    zone_append_total_time_ns: int
    flush_total_time_ns: int
    unmap_total_time_ns: int
    wr_highest_offset: int
    rd_merged: int
    wr_merged: int
    zone_append_merged: int
    unmap_merged: int
    idle_time_ns: int | None = None
    failed_rd_operations: int
    failed_wr_operations: int
    failed_zone_append_operations: int
    failed_flush_operations: int
    failed_unmap_operations: int
    invalid_rd_operations: int
    invalid_wr_operations: int
    invalid_zone_append_operations: int
    invalid_flush_operations: int
    invalid_unmap_operations: int
    account_invalid: bool
    account_failed: bool
    timed_stats: list[BlockDeviceTimedStats]
    rd_latency_histogram: BlockLatencyHistogramInfo | None = None
    wr_latency_histogram: BlockLatencyHistogramInfo | None = None
    zone_append_latency_histogram: BlockLatencyHistogramInfo | None = None
    flush_latency_histogram: BlockLatencyHistogramInfo | None = None


@struct
class BlockStatsSpecificFile:
    """A file's counters.

    discard-nb-ok: discards that worked.
    discard-nb-failed: discards that did not.
    discard-bytes-ok: bytes discarded.
    """

    discard_nb_ok: Uint64
    discard_nb_failed: Uint64
    discard_bytes_ok: Uint64


@union("driver")
class BlockStatsSpecific:
    """What a driver counts beyond the common.

    driver: the driver.
    """

    driver: BlockdevDriver
    u: Any = branches(
        fixed={"file": BlockStatsSpecificFile, "host_device": BlockStatsSpecificFile},
        source="BlockStatsSpecific",
    )


@struct
class BlockStats:
    """The counters of a guest's device or of a node.

    device: the device.
    qdev: its path among the machine's devices.
    node-name: the node.
    stats: the common counters.
    driver-specific: the driver's own.
    parent: those of the node that holds the data.
    backing: those of the backing node.
    """

    device: str | None = None
    qdev: str | None = None
    node_name: str | None = None
    stats: BlockDeviceStats
    driver_specific: BlockStatsSpecific | None = None
    parent: BlockStats | None = None
    backing: BlockStats | None = None
