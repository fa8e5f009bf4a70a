# SPDX-License-Identifier: Apache-2.0
"""Votes: ours against a model, and the model against a real daemon."""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from vote_model import Quorum, Replica

from blockyard.errors import BlockyardError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = 4096
SECTOR = 512
ERRORS = [errno.EIO, errno.ENOSPC, errno.EPERM]
KINDS = ["read", "write", "write-zeroes", "flush"]
_names = itertools.count()


def make(folder: Path, replica: Replica, later: bool) -> dict[str, Any]:
    """Options of a child like the model's."""
    file = folder / replica.name
    file.write_bytes(replica.content)
    rules = [
        {"event": "none", "iotype": kind, "errno": error, "immediately": not later}
        for kind, error in replica.errors.items()
    ]
    image = {"driver": "file", "filename": str(file), "discard": "unmap"}
    child = {"driver": "blkdebug", "node-name": replica.name, "image": image}
    return {**child, "inject-error": rules} if rules else child


def options(folder: Path, model: Quorum, later: bool = False) -> dict[str, Any]:
    """Options of a node like the model."""
    return {
        "driver": "quorum",
        "children": [make(folder, replica, later) for replica in model.replicas],
        "vote-threshold": model.threshold,
        "read-pattern": "fifo" if model.fifo else "quorum",
        "rewrite-corrupted": model.rewrite,
    }


#: A letter for each sector, and errors by kind of request.
REPLICAS = st.tuples(
    st.text("0aaab", min_size=SIZE // SECTOR, max_size=SIZE // SECTOR),
    st.one_of(
        st.just({}), st.dictionaries(st.sampled_from(KINDS), st.sampled_from(ERRORS), max_size=3)
    ),
)


def modelled(children: list[Any], threshold: int, fifo: bool, rewrite: bool) -> Quorum:
    """The model of a node with these children."""
    replicas = [
        Replica(f"c{i}", bytearray(b"".join(s.encode() * SECTOR for s in sectors)), errors)
        for i, (sectors, errors) in enumerate(children)
    ]
    return Quorum(replicas, 1 + threshold % len(replicas), fifo, rewrite)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "read", "read", "write", "zeroes", "flush"]),
        st.integers(0, SIZE - 1),
        st.integers(1, 1200),
    ),
    min_size=1,
    max_size=8,
)


def in_model(model: Quorum, step: tuple[str, int, int]) -> bytes | int:
    what, offset, length = step
    if what == "read":
        return model.read(offset, length)
    if what == "write":
        return model.write(offset, bytes([length & 127]) * length)
    if what == "zeroes":
        return model.write(offset, bytes(length), "write-zeroes")
    return model.flush()


async def in_disk(disk: Any, step: tuple[str, int, int]) -> bytes | int:
    what, offset, length = step
    try:
        if what == "read":
            return bytes(await disk.read(offset, length))
        if what == "write":
            await disk.write(offset, bytes([length & 127]) * length)
        elif what == "zeroes":
            await disk.write_zeroes(offset, length)
        else:
            await disk.flush()
    except BlockyardError as error:
        return int(error.errno)
    return 0


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    children=st.lists(REPLICAS, min_size=1, max_size=6),
    threshold=st.integers(0, 5),
    fifo=st.booleans(),
    rewrite=st.booleans(),
    steps=STEPS,
    later=st.booleans(),
)
def test_children_that_fail_or_differ(
    ours: Any,
    told: list[Any],
    tmp_path: Path,
    children: list[Any],
    threshold: int,
    fifo: bool,
    rewrite: bool,
    steps: list[Any],
    later: bool,
) -> None:
    told.clear()
    model = modelled(children, threshold, fifo, rewrite)

    async def run() -> None:
        async with await ours.yard.open(options(tmp_path, model, later)) as disk:
            for what, offset, length in steps:
                step = (what, offset, min(length, SIZE - offset))
                assert await in_disk(disk, step) == in_model(model, step)

    ours.call(run)
    for event in told:
        event.pop("reference", None)
    # What is behind it comes of the flush at the end.
    assert told[: len(model.told)] == model.told
    assert all(event["type"] == "flush" for event in told[len(model.told) :])
    for replica in model.replicas:
        assert (tmp_path / replica.name).read_bytes() == replica.content
        (tmp_path / replica.name).unlink()


# -- the model against QEMU


def replicas(contents: str, **errors: str) -> list[Replica]:
    """A child for each letter; of errors, a digit for each: 0 is none."""
    made = [Replica(f"c{next(_names)}", bytearray(c.encode() * SIZE)) for c in contents]
    for kind, digits in errors.items():
        for replica, digit in zip(made, digits, strict=True):
            if digit != "0":
                replica.errors[kind.replace("_", "-")] = ERRORS[int(digit) - 1]
    return made


READ, ODD = ("read", 1024, 1536), ("read", 100, 1000)
WRITE, ZEROES = ("write", 512, 1024), ("zeroes", 1024, 2048)
SCENARIOS: dict[str, tuple[Quorum, tuple[str, int, int]]] = {
    "one is outvoted": (Quorum(replicas("aab"), 2), READ),
    "not whole sectors": (Quorum(replicas("aba"), 2), ODD),
    "the first is outvoted": (Quorum(replicas("baa"), 2), READ),
    "all differ": (Quorum(replicas("abc"), 2), READ),
    "all differ and one is enough": (Quorum(replicas("abc"), 1), READ),
    "two and two": (Quorum(replicas("aabb"), 2), READ),
    "two and two, the first again last": (Quorum(replicas("baab"), 2), READ),
    "three and two": (Quorum(replicas("ababa"), 3), READ),
    "three and two are too few": (Quorum(replicas("ababa"), 4), READ),
    "corrected": (Quorum(replicas("abca"), 2, rewrite=True), ODD),
    "cannot be corrected": (Quorum(replicas("aab", write="001"), 2, rewrite=True), READ),
    "no quorum, nothing corrected": (Quorum(replicas("abc"), 2, rewrite=True), READ),
    "a read error": (Quorum(replicas("aaa", read="010"), 2), READ),
    "a read error and a difference": (Quorum(replicas("aab", read="100"), 1), READ),
    "a read error, and the others differ": (Quorum(replicas("aab", read="100"), 2), READ),
    "two read errors": (Quorum(replicas("aaa", read="210"), 2), READ),
    "an error is not corrected": (
        Quorum(replicas("aab", read="100"), 1, rewrite=True),
        READ,
    ),
    "a write error": (Quorum(replicas("aaa", write="010"), 2), WRITE),
    "two write errors": (Quorum(replicas("aaa", write="230"), 2), WRITE),
    "three write errors": (Quorum(replicas("aaa", write="233"), 2), WRITE),
    "write errors that tie": (Quorum(replicas("aaaa", write="2332"), 1), WRITE),
    "most write errors first": (Quorum(replicas("aaaa", write="2203"), 4), WRITE),
    "zeroes": (Quorum(replicas("aaa"), 2), ZEROES),
    "no zeroes": (Quorum(replicas("aaa", write_zeroes="220"), 2), ZEROES),
    "fifo": (Quorum(replicas("abc"), 2, fifo=True), READ),
    "fifo, the second": (Quorum(replicas("abc", read="200"), 2, fifo=True), READ),
    "fifo, none": (Quorum(replicas("abc", read="231"), 2, fifo=True), READ),
    "fifo corrects nothing": (
        Quorum(replicas("abc", read="100"), 2, fifo=True, rewrite=True),
        READ,
    ),
}


def said(result: bytes | int) -> bool:
    return isinstance(result, bytes) or result == 0


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_model_is_qemus(name: str, theirs: Callable[[], Any], tmp_path: Path) -> None:
    model, step = SCENARIOS[name]
    what, offset, length = step
    command = {
        "read": f"read -v {offset} {length}",
        "write": f"write -P {length & 127} {offset} {length}",
        "zeroes": f"write -z {offset} {length}",
    }[what]
    with theirs() as daemon:
        daemon.run("blockdev-add", **{"node-name": "q", **options(tmp_path, model)})
        daemon.export("q")
        lines = daemon.io("q", command)
        daemon.run("query-block-exports")
    result = in_model(model, step)
    told = [each for each in daemon.events if each.pop("reference", "q") == "q"]

    if isinstance(result, bytes):
        shown = [word for line in lines for word in line.split("  ")[1:2]]
        assert bytes.fromhex("".join(shown)) == result
    elif result:
        told_error = {1: "Operation not permitted", 28: "No space left on device"}
        expected = told_error.get(result, "Input/output error")
        # Of reads that fail, the NBD server drops the connection.
        assert lines[-1] == f"{what if what != 'zeroes' else 'write'} failed: " + (
            expected if what != "read" else "Input/output error"
        )
    else:
        assert "failed" not in "".join(lines)
    assert [each for each in told if each.get("type") != "flush"] == model.told
    for replica in model.replicas:
        assert (tmp_path / replica.name).read_bytes() == replica.content
