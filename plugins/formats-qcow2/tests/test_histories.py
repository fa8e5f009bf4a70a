# SPDX-License-Identifier: Apache-2.0
"""Random histories of an image against a model of its bytes, QEMU's tools judging after each part.

Blockyard and QEMU take turns on the same image.  The model is the disk's bytes, those
of each snapshot, and which parts a persistent bitmap has to show as dirty.
"""

import functools
import json
import os
import tempfile
from pathlib import Path

import anyio.from_thread
import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from blockyard import Yard, bitmaps, snapshots

SECTOR = 512
MOST = 3 << 20
GRANULARITY = 65536

SHAPES = [
    "cluster_size=512,refcount_bits=1",
    "cluster_size=4k,refcount_bits=2",
    "cluster_size=64k",
    "cluster_size=64k,compat=0.10",
    "cluster_size=64k,lazy_refcounts=on",
    "cluster_size=16k,extended_l2=on",
    "cluster_size=2M,refcount_bits=64",
    "cluster_size=64k,preallocation=metadata",
    "cluster_size=64k,compression_type=zstd",
]

offsets = st.integers(0, MOST // SECTOR - 1)
lengths = st.sampled_from([1, 2, 8, 100, 128, 129, 300, 1024])
values = st.integers(1, 255)


class Histories(RuleBasedStateMachine):
    """One image and its model."""

    def __init__(self, qemu_img, qemu_io):
        super().__init__()
        self.qemu_img, self.qemu_io = qemu_img, qemu_io
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "a.qcow2"
        self.portal_context = anyio.from_thread.start_blocking_portal()
        self.portal = self.portal_context.__enter__()
        self.yard_context = self.portal.wrap_async_context_manager(Yard())
        self.yard = self.yard_context.__enter__()
        self.image = None
        self.disk = bytearray()
        self.kept = {}
        self.dirty = None
        self.count = 0

    # -- the life of the image

    @initialize(
        shape=st.sampled_from(SHAPES), size=st.integers(1, MOST // SECTOR), base=st.booleans()
    )
    def make(self, shape, size, base):
        self.shape = shape
        self.disk = bytearray(size * SECTOR)
        words = ["create", "-q", "-f", "qcow2", "-o", shape]
        if base and "preallocation" not in shape:
            data = bytes(os.urandom(SECTOR)) * (min(size, 700))
            path = self.path.with_name("base.raw")
            path.write_bytes(data)
            self.disk[: len(data)] = data
            words += ["-b", path, "-F", "raw"]
        self.qemu_img(*words, self.path, len(self.disk))
        self.open()

    def open(self):
        options = {
            "driver": "qcow2",
            "discard": "unmap",
            "file": {"driver": "file", "filename": str(self.path)},
        }
        self.image = self.portal.call(self.yard.open, options)
        assert self.image.length == len(self.disk)
        if self.dirty is not None:
            assert bitmaps.find(self.image.node, "b") is not None

    def close(self):
        if self.image is not None:
            self.portal.call(self.image.close)
            self.image = None

    def judge(self):
        """What QEMU thinks of the closed image."""
        report = json.loads(self.qemu_img("check", "--output=json", self.path, ok=False).stdout)
        found = {kind: report[kind] for kind in ("corruptions", "leaks") if report.get(kind)}
        assert not found, report
        raw = self.path.with_name("model.raw")
        raw.write_bytes(self.disk)
        self.qemu_img("compare", "-f", "qcow2", "-F", "raw", self.path, raw)
        info = json.loads(self.qemu_img("info", "--output=json", self.path))
        assert info["virtual-size"] == len(self.disk)
        assert {s["name"] for s in info.get("snapshots", [])} == set(self.kept)
        json.loads(self.qemu_img("map", "--output=json", self.path))

    def teardown(self):
        try:
            if self.image is not None:
                self.close()
                self.judge()
        finally:
            self.close()
            self.yard_context.__exit__(None, None, None)
            self.portal_context.__exit__(None, None, None)
            self.folder.cleanup()

    def place(self, offset, length):
        """Bytes (offset, length) inside the disk, or none."""
        offset = offset * SECTOR % max(len(self.disk), 1)
        return offset, min(length * SECTOR, len(self.disk) - offset)

    def mark(self, offset, length):
        if self.dirty is not None and length:
            first, last = offset // GRANULARITY, (offset + length - 1) // GRANULARITY
            self.dirty.update(range(first, last + 1))

    def ask(self, function, *args, **more):
        return self.portal.call(functools.partial(function, *args, **more))

    # -- what a guest does

    @rule(offset=offsets, length=lengths, value=values)
    def write(self, offset, length, value):
        offset, length = self.place(offset, length)
        data = bytes([value]) * length
        self.ask(self.image.write, offset, data)
        self.disk[offset : offset + length] = data
        self.mark(offset, length)

    @rule(offset=offsets, length=lengths, unmap=st.booleans())
    def zeroes(self, offset, length, unmap):
        offset, length = self.place(offset, length)
        self.ask(self.image.write_zeroes, offset, length, may_unmap=unmap)
        self.disk[offset : offset + length] = bytes(length)
        self.mark(offset, length)

    @rule(offset=offsets, length=lengths)
    def discard(self, offset, length):
        offset, length = self.place(offset, length)
        self.ask(self.image.discard, offset, length)
        now = self.ask(self.image.read, offset, length)
        for at in range(0, length, SECTOR):
            sector = now[at : at + SECTOR]
            was = self.disk[offset + at : offset + at + SECTOR]
            assert sector == was or not any(sector)
        self.disk[offset : offset + length] = now
        self.mark(offset, length)

    @rule(offset=offsets, length=lengths)
    def read(self, offset, length):
        offset, length = self.place(offset, length)
        assert self.ask(self.image.read, offset, length) == self.disk[offset : offset + length]

    @rule()
    def flush(self):
        self.ask(self.image.flush)

    # -- what a manager does

    @precondition(lambda self: len(self.kept) < (1 if "refcount_bits=2" in self.shape else 3))
    @precondition(lambda self: "refcount_bits=1" not in self.shape)
    @rule()
    def take(self):
        self.count += 1
        name = f"s{self.count}"
        self.ask(snapshots.create_snapshot, self.yard.graph, self.image.node, name, "d")
        self.kept[name] = bytes(self.disk)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def drop(self, data):
        name = data.draw(st.sampled_from(sorted(self.kept)))
        self.ask(snapshots.delete_snapshot, self.yard.graph, self.image.node, None, name)
        del self.kept[name]

    @precondition(lambda self: self.kept and self.dirty is None)
    @rule(data=st.data())
    def revert(self, data):
        name = data.draw(st.sampled_from(sorted(self.kept)))
        self.ask(snapshots.apply_snapshot, self.yard.graph, self.image.node, name)
        self.disk = bytearray(self.kept[name])

    @precondition(lambda self: self.dirty is None and not self.kept)
    @rule(size=st.integers(1, MOST // SECTOR))
    def resize(self, size):
        self.ask(self.image.resize, size * SECTOR)
        self.disk = self.disk[: size * SECTOR].ljust(size * SECTOR, b"\0")

    @precondition(lambda self: self.dirty is None and "compat=0.10" not in self.shape)
    @rule()
    def watch(self):
        def create():
            bitmaps.create(self.image.node, "b", GRANULARITY, persistent=True)

        self.portal.call(create)
        self.dirty = set()

    @precondition(lambda self: self.dirty is not None)
    @rule()
    def look(self):
        def areas():
            return list(bitmaps.find(self.image.node, "b").areas())

        shown = set()
        for offset, length in self.portal.call(areas):
            last = (offset + length - 1) // GRANULARITY
            shown.update(range(offset // GRANULARITY, last + 1))
        assert shown == self.dirty

    @rule()
    def reopen(self):
        self.close()
        self.judge()
        self.open()

    @rule(offset=offsets, length=lengths, value=values)
    def qemus_turn(self, offset, length, value):
        self.close()
        offset, length = self.place(offset, length)
        self.qemu_io(self.path, f"write -P {value} {offset} {length}", "flush")
        self.disk[offset : offset + length] = bytes([value]) * length
        self.mark(offset, length)
        self.judge()
        self.open()


def test_histories(qemu_img, qemu_io):
    run_state_machine_as_test(
        lambda: Histories(qemu_img, qemu_io),
        settings=settings(
            max_examples=int(os.environ.get("BLOCKYARD_HISTORIES", "15")),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
