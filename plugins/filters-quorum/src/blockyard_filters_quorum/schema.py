# SPDX-License-Identifier: Apache-2.0
"""Options of ``quorum``, and its declaration."""

from __future__ import annotations

from blockyard.node import ChildSpec, DriverType
from blockyard.permission import Role
from blockyard.schema.block import BlockdevRef
from blockyard.schema.declare import QEnum, enum, struct

__all__ = ["QUORUM", "BlockdevOptionsQuorum", "QuorumReadPattern"]


@enum
class QuorumReadPattern(QEnum):
    """How quorum reads.

    quorum: all children, and a vote.
    fifo: the first child that can be read.
    """

    QUORUM = "quorum"
    FIFO = "fifo"


@struct
class BlockdevOptionsQuorum:
    """A disk that is kept several times.

    blkverify: two children, that must have the same content; a difference fails the read (false).
    children: where the disk is kept.
    vote-threshold: how many children must agree.
    rewrite-corrupted: write to children that are outvoted in a read what the others have (false).
    read-pattern: whether all children are read, or one (quorum).
    """

    blkverify: bool | None = None
    children: list[BlockdevRef]
    vote_threshold: int
    rewrite_corrupted: bool | None = None
    read_pattern: QuorumReadPattern | None = None


QUORUM = DriverType(
    name="quorum",
    kind="filter",
    options=BlockdevOptionsQuorum,
    implementation="blockyard_filters_quorum.driver:QuorumDriver",
    children=(ChildSpec(name="children", role=Role.DATA, many=True),),
)
