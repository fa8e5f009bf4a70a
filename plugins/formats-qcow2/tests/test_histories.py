# SPDX-License-Identifier: Apache-2.0
"""Random histories of an image against a model of its bytes, QEMU's tools judging after each part.

Blockyard and QEMU take turns on the same image.  The model is the disk's bytes, those
of each snapshot, and which parts a persistent bitmap has to show as dirty.
"""

import functools
import importlib.util
import os
import tempfile
from pathlib import Path

import anyio.from_thread
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from blockyard import Yard, bitmaps, snapshots
from blockyard.errors import BlockyardError, ImageIOError
from blockyard.request import StatusFlags
from blockyard.schema import visit
from blockyard.schema.qom import ObjectOptions


def load(name):
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shaped = load("shaped")
SECTOR = 512
MOST = 3 << 20
GRANULARITY = 65536
EIO, EINVAL, ENOTSUP = 5, 22, 95

offsets = st.integers(0, MOST // SECTOR - 1)
lengths = st.sampled_from([1, 2, 8, 100, 128, 129, 300, 1024])
values = st.integers(1, 255)


class Histories(RuleBasedStateMachine):
    """One image and its model."""

    def __init__(self, qemu_img, qemu_io):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.peer = shaped.Peer(Path(self.folder.name), qemu_img, qemu_io)
        self.portal_context = anyio.from_thread.start_blocking_portal()
        self.portal = self.portal_context.__enter__()
        self.yard_context = self.portal.wrap_async_context_manager(Yard())
        self.yard = self.yard_context.__enter__()
        secret = {"qom-type": "secret", "id": "s", "data": shaped.PASSPHRASE}
        self.ask(self.yard.objects.add, visit(ObjectOptions, secret))
        self.image = None
        self.disk = bytearray()
        self.kept = {}
        self.dirty = None
        self.count = 0

    # -- the life of the image

    @initialize(
        shape=st.sampled_from(shaped.SHAPES),
        size=st.integers(1, MOST // SECTOR),
        base=st.booleans(),
    )
    def make(self, shape, size, base):
        self.shape = shape
        self.disk = bytearray(size * SECTOR)
        below = None
        if base and shape.may_have_backing:
            below = bytes(os.urandom(SECTOR)) * (min(size, 700))
            self.disk[: len(below)] = below
        self.below = len(below or b"")
        self.peer.create(shape, len(self.disk), below)
        self.open()
        if shape.shows_noise:
            self.ask(self.image.write, 0, bytes(self.disk))

    def open(self):
        self.image = self.portal.call(self.yard.open, self.peer.options())
        assert self.image.length == len(self.disk)
        if self.dirty is not None:
            assert bitmaps.find(self.image.node, "b") is not None

    def close(self):
        if self.image is not None:
            self.portal.call(self.image.close)
            self.image = None

    def judge(self):
        """What QEMU thinks of the closed image; and we show the same map."""
        self.peer.check()
        self.peer.compare(self.disk)
        info = self.peer.info()
        assert info["virtual-size"] == len(self.disk)
        assert {s["name"] for s in info.get("snapshots", [])} == set(self.kept)
        theirs = self.peer.map()
        self.open()
        try:
            assert self.ask(self.walk) == theirs
            found = self.ask(self.image.node.driver.image_info)
            told = shaped.without_bitmaps(found["format-specific"])
            assert told == shaped.without_bitmaps(info["format-specific"])
        finally:
            self.close()

    async def walk(self):
        """The image's map, as :meth:`shaped.Peer.map` has QEMU's."""
        found, at = [], 0
        while at < self.image.length:
            status = await self.image.block_status(at, self.image.length - at)
            known = status.data or status.zero
            offset = status.host_offset if status.flags & StatusFlags.OFFSET and known else None
            packed = bool(status.flags & StatusFlags.COMPRESSED)
            if self.peer.backed and not status.data:
                offset = None
            extent = (status.data, status.zero and not status.data, packed)
            found += shaped.sectors(at, status.bytes, extent, offset)
            at += status.bytes
        return found

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

    def wrote(self, offset, data):
        self.disk[offset : offset + len(data)] = data
        self.mark(offset, len(data))

    def adopt(self, offset, length, *allowed):
        """The model follows the image, where a sector may be as it was or one of ``allowed``."""
        now = self.ask(self.image.read, offset, length)
        for at in range(0, length, SECTOR):
            sector = now[at : at + SECTOR]
            was = self.disk[offset + at : offset + at + SECTOR]
            assert sector == was or sector in allowed, offset + at
        self.disk[offset : offset + length] = now

    # -- what a guest does

    @rule(offset=offsets, length=lengths, value=values)
    def write(self, offset, length, value):
        offset, length = self.place(offset, length)
        data = bytes([value]) * length
        self.ask(self.image.write, offset, data)
        self.wrote(offset, data)

    @rule(offset=offsets, length=lengths, value=values, noise=st.booleans())
    def compress(self, offset, length, value, noise):
        """Whole clusters, or up to the end; over a cluster that has data it fails.

        QEMU compresses in encrypted images as well, unencrypted; we read those clusters
        and make none.
        """
        cluster = self.image.limits.cluster_size
        offset, length = self.place(offset, length)
        offset -= offset % cluster
        length = min(-(-length // cluster) * cluster, len(self.disk) - offset)
        sector = os.urandom(SECTOR) if noise else bytes([value]) * SECTOR
        data = sector * (length // SECTOR)
        number = 0
        try:
            self.ask(self.image.write, offset, data, compressed=True)
        except ImageIOError as error:
            number = error.errno
        if number == 0:
            assert self.shape.may_compress
            self.wrote(offset, data)
        else:
            assert number == (EIO if self.shape.may_compress else ENOTSUP)
            self.adopt(offset, length, *([sector] if self.shape.may_compress else []))
            self.mark(offset, length)

    @precondition(lambda self: len(self.disk) >= 2 * SECTOR)
    @precondition(lambda self: "cluster_size=512," not in self.shape.options)
    @rule()
    def compress_a_part(self):
        with pytest.raises(ImageIOError) as found:
            self.ask(self.image.write, SECTOR, bytes(SECTOR), compressed=True)
        assert found.value.errno == (EINVAL if self.shape.may_compress else ENOTSUP)
        self.mark(SECTOR, SECTOR)

    @rule(offset=offsets, length=lengths, unmap=st.booleans())
    def zeroes(self, offset, length, unmap):
        offset, length = self.place(offset, length)
        self.ask(self.image.write_zeroes, offset, length, may_unmap=unmap)
        self.wrote(offset, bytes(length))

    @rule(offset=offsets, length=lengths)
    def discard(self, offset, length):
        offset, length = self.place(offset, length)
        self.ask(self.image.discard, offset, length)
        self.adopt(offset, length, bytes(SECTOR))
        self.mark(offset, length)

    @rule(offset=offsets, length=lengths)
    def read(self, offset, length):
        offset, length = self.place(offset, length)
        assert self.ask(self.image.read, offset, length) == self.disk[offset : offset + length]

    @rule()
    def flush(self):
        self.ask(self.image.flush)

    # -- what a manager does

    @precondition(lambda self: len(self.kept) < self.shape.snapshots)
    @rule(qemu=st.booleans())
    def take(self, qemu):
        self.count += 1
        name = f"s{self.count}"
        if qemu and not self.shape.narrow:
            self.close()
            self.peer.snapshot("-c", name)
            self.kept[name] = bytes(self.disk)
            self.judge()
            self.open()
        elif self.takes(name):
            self.kept[name] = bytes(self.disk)

    def takes(self, name):
        """Take a snapshot; more compressed clusters in one may be than refcounts can count."""
        try:
            self.ask(snapshots.create_snapshot, self.yard.graph, self.image.node, name, "d")
        except ImageIOError as error:
            if error.errno == EINVAL and self.shape.narrow:
                return False
            raise
        return True

    @precondition(lambda self: self.shape.data)
    @rule()
    def take_nothing(self):
        with pytest.raises(BlockyardError, match="ot support"):
            self.ask(snapshots.create_snapshot, self.yard.graph, self.image.node, "s", "d")

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), qemu=st.booleans())
    def drop(self, data, qemu):
        name = data.draw(st.sampled_from(sorted(self.kept)))
        if qemu:
            self.close()
            self.peer.snapshot("-d", name)
            self.open()
        else:
            self.ask(snapshots.delete_snapshot, self.yard.graph, self.image.node, None, name)
        del self.kept[name]

    @precondition(lambda self: self.kept and self.dirty is None)
    @rule(data=st.data(), qemu=st.booleans())
    def revert(self, data, qemu):
        name = data.draw(st.sampled_from(sorted(self.kept)))
        self.disk = bytearray(self.kept[name])
        if qemu:
            self.close()
            self.peer.snapshot("-a", name)
            self.open()
        else:
            self.ask(snapshots.apply_snapshot, self.yard.graph, self.image.node, name)

    @precondition(lambda self: not (self.kept and self.shape.old))
    @rule(size=st.integers(1, MOST // SECTOR), qemu=st.booleans())
    def resize(self, size, qemu):
        length, was = size * SECTOR, len(self.disk)
        if self.kept:
            # An image that has snapshots cannot shrink.
            length = max(length, was)
        if self.shape.old and was < self.below:
            length = min(length, was)  # Both refuse to grow it: no entry hides what is below.
        if qemu:
            self.close()
            self.peer.resize(length)
        else:
            self.ask(self.image.resize, length)
        self.disk = self.disk[:length].ljust(length, b"\0")
        if qemu:
            self.open()
        if self.dirty is not None:
            self.dirty = {bit for bit in self.dirty if bit * GRANULARITY < length}
        if qemu and length > was:
            # It shows again what a cluster has behind the end of a disk that shrank.
            end = min(length, was + -was % self.image.limits.cluster_size)
            self.disk[was:end] = self.ask(self.image.read, was, end - was)
        if self.shape.shows_noise and length > was:
            # What was never encrypted reads as noise.
            self.disk[was:] = self.ask(self.image.read, was, length - was)

    @precondition(lambda self: self.dirty is None and not self.shape.old)
    @rule(qemu=st.booleans())
    def watch(self, qemu):
        def create():
            bitmaps.create(self.image.node, "b", GRANULARITY, persistent=True)

        if qemu:
            self.close()
            self.peer.bitmap("--add", "-g", GRANULARITY)
            self.dirty = set()
            self.open()
        else:
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

    @rule(
        offset=offsets,
        length=lengths,
        value=values,
        kind=st.sampled_from(["write", "write -c", "write -z", "write -zu", "discard"]),
    )
    def qemus_turn(self, offset, length, value, kind):
        offset, length = self.place(offset, length)
        if kind == "write -c":
            cluster = self.image.limits.cluster_size
            offset -= offset % cluster
            length = min(-(-length // cluster) * cluster, len(self.disk) - offset)
        self.close()
        pattern = f"-P {value} " if kind in ("write", "write -c") else ""
        said = self.peer.io(f"{kind} {pattern}{offset} {length}", "flush")
        assert kind == "write -c" or "failed" not in said, said
        self.mark(offset, length)
        self.open()
        new = bytes(SECTOR) if not pattern else bytes([value]) * SECTOR
        if kind == "discard" or "failed" in said:
            self.adopt(offset, length, new)
        else:
            self.disk[offset : offset + length] = new * (length // SECTOR)
        self.close()
        self.judge()
        self.open()


def test_histories(qemu_img, qemu_io):
    run_state_machine_as_test(
        lambda: Histories(qemu_img, qemu_io),
        settings=settings(
            max_examples=int(os.environ.get("BLOCKYARD_HISTORIES", "20")),
            stateful_step_count=30,
            deadline=None,
            report_multiple_bugs=False,
            phases=[Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
