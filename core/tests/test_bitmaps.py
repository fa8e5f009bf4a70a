# SPDX-License-Identifier: Apache-2.0
"""Dirty bitmaps: against a model, at the life of a node, and as drivers keep them."""

import hashlib
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from blockyard import bitmaps
from blockyard.bitmaps import Check
from blockyard.dirtybitmap import DirtyBitmap
from blockyard.errors import BlockyardError
from blockyard.node import DriverType, Opened, PythonDriver
from blockyard.plugins import Registry
from blockyard.request import Limits, Preallocation, RequestFlags
from blockyard.schema import visit
from blockyard.schema.block import BlockdevOptions
from blockyard.yard import Yard

LIMIT = 1 << 20
#: Offsets where bits, bytes, words and nodes of the tree begin and end, and others.
places = st.one_of(
    st.integers(0, LIMIT), st.integers(0, 32).map(lambda n: max(0, n * 32768 - 1)), st.just(0)
)
grains = st.sampled_from([512, 1024, 4096, 65536])


class _Place:
    """As much of a node as a bitmap that is attached to none needs."""

    name = "node"


def make(granularity: int, length: int) -> DirtyBitmap:
    return DirtyBitmap(_Place(), "b", granularity, length)  # type: ignore[arg-type]


class BitmapModel(RuleBasedStateMachine):
    """A bitmap beside the set of its bits."""

    def __init__(self) -> None:
        super().__init__()
        self.length = LIMIT - 300
        self.bitmap = make(512, self.length)
        self.bits: set[int] = set()
        self.held: tuple[Any, set[int]] | None = None
        self.copied: tuple[Any, set[int]] | None = None

    def covered(self, offset: int, length: int) -> set[int]:
        end = min(offset + length, self.length)
        return set(range(offset // 512, -(-end // 512))) if end > offset else set()

    def cut(self, bits: set[int]) -> set[int]:
        return {bit for bit in bits if bit * 512 < self.length}

    @rule(offset=places, length=places)
    def mark(self, offset: int, length: int) -> None:
        self.bitmap.mark(offset, length)
        self.bits |= self.covered(offset, length)

    @rule(at=st.integers(0, 40), data=st.binary(max_size=40))
    def deserialise(self, at: int, data: bytes) -> None:
        self.bitmap.deserialise(at * 8, data)
        new = {64 * at + i for i in range(8 * len(data)) if data[i // 8] >> i % 8 & 1}
        self.bits |= self.cut(new)

    @rule()
    def clear(self) -> None:
        self.bitmap.clear()
        self.bits = set()

    @rule(granularity=grains, offset=places, length=places)
    def merge(self, granularity: int, offset: int, length: int) -> None:
        other = make(granularity, self.length)
        other.mark(offset, length)
        for start, count in other.areas():
            self.bits |= self.covered(start, count)
        self.bitmap.merge(other)

    @rule(length=places)
    def move_to_another_length(self, length: int) -> None:
        replacement = make(512, length)
        replacement.merge(self.bitmap)
        self.bitmap, self.length = replacement, length
        self.bits = self.cut(self.bits)

    @rule()
    def take(self) -> None:
        self.held = (self.bitmap.take(), self.bits)
        self.bits = set()

    @precondition(lambda self: self.held)
    @rule()
    def give_back(self) -> None:
        assert self.held
        native, bits = self.held
        self.held = None
        self.bitmap.give_back(native)
        self.bits = self.bits | self.cut(bits)

    @rule()
    def copy(self) -> None:
        self.copied = (self.bitmap.copy(), set(self.bits))

    @precondition(lambda self: self.copied)
    @rule()
    def restore(self) -> None:
        assert self.copied
        native, bits = self.copied
        self.copied = None
        self.bitmap.restore(native)
        self.bits = self.cut(bits)

    def as_bytes(self) -> bytes:
        total = -(-self.length // (8 * 512))
        out = bytearray(total)
        for bit in self.bits:
            out[bit // 8] |= 1 << bit % 8
        return bytes(out)

    @invariant()
    def looks_like_the_model(self) -> None:
        bitmap = self.bitmap
        data = self.as_bytes()
        assert bitmap.length == self.length
        assert bitmap.count == 512 * len(self.bits)
        assert bitmap.serialised_bytes == len(data)
        assert bitmap.serialise(0, len(data)) == data
        shown: set[int] = set()
        before = -1
        for offset, length in bitmap.areas():
            assert offset > before
            shown |= self.covered(offset, length)
            before = offset + length
        assert shown == self.bits

    @rule(size=st.sampled_from([8, 16, 64, 4096]))
    def pieces(self, size: int) -> None:
        data = self.as_bytes()
        rebuilt = bytearray(len(data))
        for at, piece in self.bitmap.pieces(size):
            assert at % size == 0
            assert any(piece)
            assert len(piece) == min(size, len(data) - at)
            rebuilt[at : at + len(piece)] = piece
        assert rebuilt == data

    @rule()
    def digest(self) -> None:
        data = self.as_bytes()
        padded = data.ljust(max(8, -(-len(data) // 8) * 8), b"\0")
        assert self.bitmap.sha256() == hashlib.sha256(padded).hexdigest()


BitmapModel.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestBitmapModel = BitmapModel.TestCase


def test_a_sparse_bitmap_of_the_longest_node_is_small_and_fast() -> None:
    bitmap = make(512, 2**63 - 1)
    for i in range(1000):
        bitmap.mark(i << 52, 1)
    assert bitmap.count == 512 * 1000
    assert sum(1 for _ in bitmap.areas()) == 1000
    assert sum(1 for _ in bitmap.pieces(65536)) == 1000
    other = make(65536, 2**63 - 1)
    other.merge(bitmap)
    assert other.count == 65536 * 1000
    bitmap.mark(0, 2**64 - 1)
    assert list(bitmap.areas()) == [(0, 2**63 - 1)]


def test_a_bitmap_says_why_it_cannot_be_used() -> None:
    bitmap = make(512, 512)
    bitmap.check(Check.ALL)
    bitmap.inconsistent = True
    assert refusal(bitmap, Check.ALL) == "Bitmap 'b' is inconsistent and cannot be used"
    bitmap.read_only = True
    assert refusal(bitmap, Check.USE) == "Bitmap 'b' is inconsistent and cannot be used"
    assert refusal(bitmap, Check.ALL) == "Bitmap 'b' is readonly and cannot be modified"
    bitmap.busy = True
    assert refusal(bitmap, Check.USE) == (
        "Bitmap 'b' is currently in use by another operation and cannot be used"
    )


def refusal(bitmap: DirtyBitmap, forbidden: Check) -> str:
    with pytest.raises(BlockyardError) as caught:
        bitmap.check(forbidden)
    return str(caught.value)


# -- nodes


class KeepingDriver(PythonDriver):
    """Bytes in memory, and an image of their bitmaps that outlives the node."""

    type = DriverType(name="keep", kind="protocol", options=None, implementation="")
    #: What the images have stored: granularity and bytes.
    stored: ClassVar[dict[str, tuple[int, bytes]]] = {}
    cluster_size: ClassVar[int] = 0

    async def open(self) -> Opened:
        self.memory = bytearray(65536)
        self.load()
        return Opened(length=65536, limits=Limits(cluster_size=self.cluster_size))

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(self.memory[offset : offset + length])

    async def write(self, offset: int, view: memoryview, flags: RequestFlags) -> None:
        self.memory[offset : offset + len(view)] = view

    async def truncate(self, length: int, prealloc: Preallocation, exact: bool) -> None:
        self.memory = self.memory[:length].ljust(length, b"\0")

    def load(self) -> None:
        for name, (granularity, data) in self.stored.items():
            bitmap = bitmaps.load(self.node, name, granularity, 65536, recording=True)
            bitmap.deserialise(0, data)

    def store(self) -> None:
        for bitmap in bitmaps.to_store(self.node):
            data = bytearray(bitmap.serialised_bytes)
            for at, piece in bitmap.pieces(8):
                data[at : at + len(piece)] = piece
            self.stored[bitmap.name] = (bitmap.granularity, bytes(data))
        bitmaps.release_stored(self.node)

    def can_store_bitmap(self, name: str, granularity: int) -> None:
        if name == "heavy":
            raise BlockyardError("too heavy")

    async def remove_persistent_bitmap(self, name: str) -> None:
        self.stored.pop(name, None)

    async def before_close(self) -> None:
        self.store()

    async def set_active(self, active: bool) -> None:
        if active:
            self.load()
        else:
            self.store()


@pytest.fixture
def registry(registry: Registry) -> Registry:
    KeepingDriver.stored.clear()
    KeepingDriver.cluster_size = 0
    registry.add("drivers", "keep", KeepingDriver)
    return registry


@pytest.mark.anyio
async def test_what_is_written_is_recorded_while_the_bitmap_is_enabled(yard: Yard) -> None:
    disk = await yard.open(driver="keep", node_name="disk")
    bitmap = bitmaps.create(disk.node, "b", 4096)
    await disk.write(5000, bytes(100))
    bitmap.recording = False
    await disk.write(20000, bytes(100))
    bitmap.recording = True
    await disk.write_zeroes(40960, 4096)
    assert list(bitmap.areas()) == [(4096, 4096), (40960, 4096)]
    assert bitmap.count == 8192


@pytest.mark.anyio
async def test_a_bitmap_follows_a_resize(yard: Yard) -> None:
    disk = await yard.open(driver="keep", node_name="disk")
    bitmap = bitmaps.create(disk.node, "b", 512)
    await disk.write(65536 - 512, bytes(512))
    await disk.resize(32768)
    assert (bitmap.length, bitmap.count) == (32768, 0)
    await disk.resize(65536)
    assert (bitmap.length, bitmap.count) == (65536, 0)


@pytest.mark.anyio
async def test_persistent_bitmaps_outlive_their_node(yard: Yard) -> None:
    disk = await yard.open(driver="keep", node_name="disk")
    bitmaps.create(disk.node, "kept", 512, persistent=True)
    bitmaps.create(disk.node, "lost", 512)
    await disk.write(1024, bytes(512))
    await disk.close()
    assert KeepingDriver.stored == {"kept": (512, b"\4" + bytes(15))}

    disk = await yard.open(driver="keep", node_name="disk")
    assert list(disk.node.bitmaps) == ["kept"]
    kept = disk.node.bitmaps["kept"]
    assert (kept.persistent, kept.recording, kept.length) == (True, True, 65536)
    await disk.write(0, bytes(512))
    assert list(kept.areas()) == [(0, 512), (1024, 512)]


@pytest.mark.anyio
async def test_bitmaps_are_let_go_of_with_the_image(yard: Yard) -> None:
    options = visit(BlockdevOptions, {"driver": "keep", "node-name": "disk"})
    disk = await yard.graph.add(options)
    bitmaps.create(disk, "kept", 512, persistent=True).mark(512, 512)
    disk.bitmaps["kept"].busy = True
    with pytest.raises(BlockyardError, match="^Failed to inactivate node: Operation not perm"):
        await yard.graph.set_active(disk, False)
    disk.bitmaps["kept"].busy = False
    await yard.graph.set_active(disk, False)
    assert disk.bitmaps == {}
    await yard.graph.set_active(disk, True)
    assert list(disk.bitmaps["kept"].areas()) == [(512, 512)]


@pytest.mark.anyio
async def test_nothing_changes_while_a_bitmap_is_read_only(yard: Yard) -> None:
    KeepingDriver.stored["kept"] = (512, b"\1")
    disk = await yard.open(driver="keep", node_name="disk")
    disk.node.bitmaps["kept"].read_only = True
    with pytest.raises(BlockyardError, match="Operation not permitted"):
        await disk.write(0, bytes(512))
    assert bitmaps.to_store(disk.node) == []
    assert bitmaps.persistent(disk.node) == [disk.node.bitmaps["kept"]]
    disk.node.bitmaps["kept"].read_only = False
    await disk.write(0, bytes(512))


@pytest.mark.anyio
async def test_a_driver_may_refuse_to_keep_a_bitmap(yard: Yard) -> None:
    disk = await yard.open(driver="keep", node_name="disk")
    with pytest.raises(BlockyardError, match="^too heavy$"):
        bitmaps.create(disk.node, "heavy", persistent=True)
    bitmaps.create(disk.node, "heavy")
    assert [*disk.node.bitmaps] == ["heavy"]
    over = await yard.open(driver="over", node_name="over", file={"driver": "keep"})
    with pytest.raises(BlockyardError, match="^Can't store persistent bitmaps to over: Oper"):
        bitmaps.create(over.node, "b", persistent=True)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("cluster", "granularity"), [(0, 65536), (512, 4096), (8192, 8192), (1 << 21, 65536)]
)
async def test_the_default_granularity_is_the_cluster_size_within_bounds(
    yard: Yard, cluster: int, granularity: int
) -> None:
    KeepingDriver.cluster_size = cluster
    over = await yard.open(driver="over", file={"driver": "keep"})
    assert bitmaps.create(over.node, "b").granularity == granularity
