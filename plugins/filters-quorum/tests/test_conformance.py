# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on three files, in both ways to read, and over limits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite

if TYPE_CHECKING:
    from pathlib import Path


def replicas(folder: Path, size: int, count: int) -> list[dict[str, Any]]:
    """Options of new files."""
    names = [folder / f"{index}.img" for index in range(count)]
    for name in names:
        name.touch()
        os.truncate(name, size)
    return [{"driver": "file", "filename": str(name), "discard": "unmap"} for name in names]


def quorum(
    count: int = 3, threshold: int = 2, *, writes_always: bool = False, **options: Any
) -> Subject:
    def make(folder: Path, size: int) -> dict[str, Any]:
        children = replicas(folder, size, count)
        return {
            "driver": "quorum",
            "children": children,
            "vote-threshold": threshold,
            "discard": "unmap",
            **options,
        }

    refused: list[dict[str, Any]] = [
        {"driver": "quorum", "children": [], "vote-threshold": 1},
        {"driver": "quorum", "children": ["nobody"], "vote-threshold": 1},
        {"driver": "quorum", "children": [{"driver": "null-co"}, "x"], "vote-threshold": 1},
    ]
    return Subject(make=make, refused=tuple(refused), writes_always=writes_always)


class TestQuorum(ConformanceSuite):
    subject = quorum()


class TestOne(ConformanceSuite):
    subject = quorum(1, 1)


class TestFifo(ConformanceSuite):
    subject = quorum(**{"read-pattern": "fifo"})


class TestRewriting(ConformanceSuite):
    subject = quorum(writes_always=True, **{"rewrite-corrupted": True})


class TestBlkverify(ConformanceSuite):
    subject = quorum(2, 2, blkverify=True)


def _unlike(folder: Path, size: int) -> dict[str, Any]:
    """Children of different limits."""
    first, second = replicas(folder, size, 2)
    aligned = {"driver": "blkdebug", "image": first, "align": 4096}
    small = {"driver": "blkdebug", "image": second, "max-transfer": 65536, "align": 512}
    return {"driver": "quorum", "children": [aligned, small], "vote-threshold": 2}


class TestUnlikeChildren(ConformanceSuite):
    subject = Subject(make=_unlike)
