# SPDX-License-Identifier: Apache-2.0
"""What QEMU's quorum does with children that fail or have other data, as a model.

It was learned from the program: what it answers, what it tells, what the children's
files have afterwards.
"""

from __future__ import annotations

import os
from typing import Any

import attrs


@attrs.define
class Replica:
    """A child: its content, and the errors of its requests by kind (``"read"``...).

    A flush fails if there is something to flush: a write was tried (``touched``).
    """

    name: str
    content: bytearray
    errors: dict[str, int] = attrs.field(factory=dict)
    touched: bool = False

    def fails(self, kind: str) -> bool:
        """Whether a request of this kind fails."""
        return kind in self.errors and (kind != "flush" or self.touched)


@attrs.define
class Quorum:
    """The node; ``told`` is what monitors hear, without limits of rate."""

    replicas: list[Replica]
    threshold: int
    fifo: bool = False
    rewrite: bool = False
    told: list[dict[str, Any]] = attrs.field(factory=list)

    def read(self, offset: int, length: int) -> bytes | int:
        """The data, or the errno."""
        if self.fifo:
            return self._read_first(offset, length)
        good = self._failures("read", "read", offset, length)
        if len(good) < self.threshold:
            self._no_quorum(offset, length)
            return self._error("read")
        versions: dict[bytes, list[Replica]] = {}
        for each in good:
            versions.setdefault(bytes(each.content[offset : offset + length]), []).append(each)
        winner = _most(versions)
        if len(versions) > 1 and len(versions[winner]) < self.threshold:
            self._no_quorum(offset, length)
            return 5
        for version in reversed(versions):
            for each in reversed(versions[version] if version != winner else []):
                self._bad(each, "read", None, offset, length)
                if self.rewrite:
                    each.touched = True
                    if not each.fails("write"):
                        each.content[offset : offset + length] = winner
        return winner

    def write(self, offset: int, data: bytes, kind: str = "write") -> int:
        """0 or the errno; ``kind`` is that of the children's requests."""
        for each in self.replicas:
            each.touched = True
        good = self._failures(kind, "write", offset, len(data))
        for each in good:
            each.content[offset : offset + len(data)] = data
        if len(good) >= self.threshold:
            return 0
        self._no_quorum(offset, len(data))
        return self._error(kind)

    def flush(self) -> int:
        """0 or the errno."""
        good = self._failures("flush", "flush", 0, 0)
        return 0 if len(good) >= self.threshold else self._error("flush")

    def _read_first(self, offset: int, length: int) -> bytes | int:
        error = 0
        for each in self.replicas:
            if "read" not in each.errors:
                return bytes(each.content[offset : offset + length])
            error = each.errors["read"]
            self._bad(each, "read", error, offset, length)
        return error

    def _failures(self, kind: str, type_: str, offset: int, length: int) -> list[Replica]:
        for each in self.replicas:
            if each.fails(kind):
                self._bad(each, type_, each.errors[kind], offset, length)
        return [each for each in self.replicas if not each.fails(kind)]

    def _error(self, kind: str) -> int:
        errors: dict[int, list[Replica]] = {}
        for each in self.replicas:
            if each.fails(kind):
                errors.setdefault(each.errors[kind], []).append(each)
        return _most(errors)

    def _bad(self, replica: Replica, type_: str, error: int | None, at: int, length: int) -> None:
        text = {} if error is None else {"error": os.strerror(error)}
        where = _sectors(at, length)
        self.told.append(
            {"event": "QUORUM_REPORT_BAD", "type": type_, "node-name": replica.name} | text | where
        )

    def _no_quorum(self, offset: int, length: int) -> None:
        self.told.append({"event": "QUORUM_FAILURE", **_sectors(offset, length)})


def _sectors(offset: int, length: int) -> dict[str, int]:
    first = offset // 512
    return {"sector-num": first, "sectors-count": -(-(offset + length) // 512) - first}


def _most(votes: dict[Any, list[Replica]]) -> Any:
    """Of several with as many votes, the one that was first seen last."""
    most = max(len(each) for each in votes.values())
    return [key for key, each in votes.items() if len(each) == most][-1]
