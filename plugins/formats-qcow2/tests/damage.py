# SPDX-License-Identifier: Apache-2.0
"""A qcow2 file's fields, to be damaged by tests."""

import random
import struct
from pathlib import Path

COPIED = 1 << 63
COMPRESSED = 1 << 62
OFFSET = 0x00FFFFFFFFFFFE00


class Image:
    """Fields of a file, by their offsets; behind its end there are zeroes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, offset: int, count: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(count).ljust(count, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def get(self, offset: int) -> int:
        return struct.unpack(">Q", self.read(offset, 8))[0]

    def put(self, offset: int, value: int) -> None:
        self.write(offset, struct.pack(">Q", value % 2**64))

    def flip(self, offset: int, bits: int) -> None:
        self.put(offset, self.get(offset) ^ bits)

    def get32(self, offset: int) -> int:
        return struct.unpack(">I", self.read(offset, 4))[0]

    def put32(self, offset: int, value: int) -> None:
        self.write(offset, struct.pack(">I", value))

    @property
    def cluster(self) -> int:
        return 1 << self.get32(20)

    @property
    def l1(self) -> int:
        return self.get(40)

    @property
    def reftable(self) -> int:
        return self.get(48)

    @property
    def snapshots(self) -> int:
        return self.get(64)

    def l2(self, index: int = 0) -> int:
        return self.get(self.l1 + 8 * index) & OFFSET

    def refblock(self, index: int = 0) -> int:
        return self.get(self.reftable + 8 * index)

    def refcount(self, cluster: int, value: int) -> None:
        """Set a refcount of 16 bits."""
        self.write(self.refblock() + 2 * cluster, struct.pack(">H", value))

    def tables(self) -> list[tuple[int, int]]:
        """Where tables begin, and how many bytes of them are worth damaging."""
        found = [(self.l1, self.get32(36) * 8), (self.reftable, 64)]
        l2s = [self.l2(index) for index in range(self.get32(36))]
        found += [(offset, min(self.cluster, 1024)) for offset in l2s if offset]
        entries = self.get32(56) * self.cluster // 8
        blocks = [self.refblock(index) for index in range(entries)]
        found += [(offset, min(self.cluster, 512)) for offset in blocks if offset]
        if count := self.get32(60):
            found += [(self.snapshots, 72 * count), (self.get(self.snapshots), 64)]
        return found


def at_random(image: Image, chance: random.Random) -> None:
    """Damage a few entries of an image's tables."""
    tables = image.tables()
    size, cluster = image.path.stat().st_size, image.cluster
    for _ in range(chance.choice([1, 1, 1, 2, 3, 5])):
        offset, count = chance.choice(tables)
        byte = offset + chance.randrange(max(1, count))
        entry = byte & ~7
        match chance.randrange(7):
            case 0:
                image.write(byte, bytes([chance.randrange(256)]))
            case 1:
                image.flip(entry, 1 << chance.randrange(64))
            case 2:
                flags = chance.choice([0, COPIED, COMPRESSED])
                image.put(entry, flags | chance.randrange(size // cluster + 3) * cluster)
            case 3:
                other, length = chance.choice(tables)
                image.put(entry, image.get((other + chance.randrange(length)) & ~7))
            case 4:
                image.put(entry, chance.choice([0, 2**64 - 1, COPIED, 1, chance.getrandbits(64)]))
            case 5:
                image.put(entry, image.get(entry) + chance.choice([512, cluster, -cluster, 1]))
            case _ if chance.random() < 0.2:
                with image.path.open("r+b") as file:
                    file.truncate(chance.randrange(size // 2, size + cluster))
