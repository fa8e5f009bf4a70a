# SPDX-License-Identifier: Apache-2.0
"""Options of ``quorum``, and its declaration."""

from __future__ import annotations

import re
from typing import Any

from blockyard.errors import InvalidOption
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


def adapt_options(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse options of a name or a command line in the words that people see there.

    :raises InvalidOption: with QEMU's text.
    """
    if not isinstance(options.get("children"), list):
        raise InvalidOption("Number of provided children must be 1 or more")
    if "vote-threshold" not in options:
        raise InvalidOption("Parameter 'vote-threshold' expects a value >= 1")
    threshold = options["vote-threshold"]
    if isinstance(threshold, str) and not re.fullmatch("[0-9]+", threshold):
        raise InvalidOption("Parameter 'vote-threshold' expects a number")
    if options.get("read-pattern", "fifo") not in ("fifo", "quorum"):
        raise InvalidOption("Please set read-pattern as fifo or quorum")
    return options


QUORUM = DriverType(
    name="quorum",
    kind="filter",
    options=BlockdevOptionsQuorum,
    implementation="blockyard_filters_quorum.driver:QuorumDriver",
    children=(ChildSpec(name="children", role=Role.DATA, many=True),),
    adapt_options=adapt_options,
)
