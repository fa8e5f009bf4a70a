# SPDX-License-Identifier: Apache-2.0
"""What quorum tells monitors."""

from __future__ import annotations

from blockyard.qmp.event import event
from blockyard.schema.declare import QEnum, enum, struct

__all__ = ["QuorumFailure", "QuorumOpType", "QuorumReportBad"]


@enum
class QuorumOpType(QEnum):
    """What was asked of a child.

    read: a read.
    write: a write, of zeroes as well.
    flush: a flush.
    """

    READ = "read"
    WRITE = "write"
    FLUSH = "flush"


@event("QUORUM_FAILURE", interval=1.0)
@struct
class QuorumFailure:
    """There is no quorum: a request has failed.

    reference: the node.
    sector-num: the first sector, of 512 bytes, of the request.
    sectors-count: how many sectors it touches.
    """

    reference: str
    sector_num: int
    sectors_count: int


@event("QUORUM_REPORT_BAD", interval=1.0, key="node_name")
@struct
class QuorumReportBad:
    """A child has failed, or was outvoted.

    type: what was asked of it.
    error: why it failed; absent if it was outvoted.
    node-name: the child's node.
    sector-num: the first sector, of 512 bytes, of the request.
    sectors-count: how many sectors it touches.
    """

    type: QuorumOpType
    error: str | None = None
    node_name: str
    sector_num: int
    sectors_count: int
