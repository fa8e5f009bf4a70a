# SPDX-License-Identifier: Apache-2.0
"""Every field of a qcow2 file by its place, and values that such fields must be feared for."""

import importlib.util
import os
from pathlib import Path

_spec = importlib.util.spec_from_file_location("damage", Path(__file__).parent / "damage.py")
damage = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(damage)

BITMAPS, CRYPTO = 0x23852875, 0x0537BE77
EDGES = (
    *(0, 1, 2, 7, 8, 63, 0x7F, 0x80, 0xFF, 511, 512, 513, 0x7FFF, 0x8000, 0xFFFF, 0x10000),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFE00, 0xFFFFFFFF, 1 << 32, (1 << 32) + 512, 1 << 40, 1 << 55),
    *((1 << 56) - 512, 1 << 56, 1 << 61, (1 << 62) - 512, 1 << 62, (1 << 63) - 512, (1 << 63) - 1),
    *(1 << 63, (1 << 63) | 512, 2**64 - 65536, 2**64 - 512, 2**64 - 1),
)
_HEADER = ((4, 4), (8, 8), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 4),
           (60, 4), (64, 8), (72, 8), (80, 8), (88, 8), (96, 4), (100, 4), (104, 1))  # fmt: skip
_SNAPSHOT = ((0, 8), (8, 4), (12, 2), (14, 2), (32, 4), (36, 4), (40, 8), (48, 8), (56, 8))
_BITMAP = ((0, 8), (8, 4), (12, 4), (16, 1), (17, 1), (18, 2), (20, 4), (24, 4))
_LUKS = ((0, 4), (4, 4), (8, 8), (40, 8), (72, 8), (104, 4), (108, 4), (164, 4), (168, 8))


class Fields:
    """The fields of a good image: ``groups`` has their places and widths in bytes, by kind."""

    def __init__(self, image):
        self.image = image
        self.groups = {"header": list(_HEADER)}
        self.places = [0, image.l1, image.l2(), image.reftable, image.refblock(), image.snapshots]
        self._extensions()
        self._tables()
        self._snapshots()

    def _add(self, kind, base, fields):
        self.groups.setdefault(kind, []).extend((base + at, width) for at, width in fields)

    def _extensions(self):
        at, kind = (self.image.get32(100) if self.image.get32(4) == 3 else 72), 1
        while kind:
            kind, length = self.image.get32(at), self.image.get32(at + 4)
            self._add("extensions", at, [(0, 4), (4, 4)])
            words = [(8 + n, 8) for n in range(0, length, 8)]
            if kind == BITMAPS:
                self._add("bitmaps", at, words)
                self._bitmap(self.image.get(at + 24))
            elif kind == CRYPTO:
                self._add("luks", at, words)
                self._luks(self.image.get(at + 8))
            elif length < 256:
                self._add("extensions", at, words)
            at += 8 + -(-length // 8) * 8

    def _bitmap(self, directory):
        self.places.append(directory)
        self._add("bitmaps", directory, _BITMAP)
        self._add("bitmap tables", self.image.get(directory), [(0, 8), (8, 8)])

    def _luks(self, header):
        self.places.append(header)
        self._add("luks", header, _LUKS)
        for slot in (0, 1, 7):
            self._add("key slots", header + 208 + 48 * slot, [(0, 4), (4, 4), (40, 4), (44, 4)])

    def _tables(self):
        image = self.image
        extended = image.get32(4) == 3 and image.get(72) & 16
        self._add("l1", image.l1, [(8 * n, 8) for n in range(min(4, image.get32(36)))])
        self._add("l2", image.l2(), [(8 * n, 8) for n in (*range(12 if extended else 6), 16, 32)])
        self._add("refcount table", image.reftable, [(0, 8), (8, 8)])
        self._add("refcounts", image.refblock(), [(2 * n, 2) for n in range(12)])

    def _snapshots(self):
        if self.image.get32(60):
            self._add("snapshots", self.image.snapshots, _SNAPSHOT)
            self._add("snapshot l1", self.image.get(self.image.snapshots), [(0, 8), (8, 8)])

    def _value(self, chance, at, width):
        image = self.image
        old = int.from_bytes(image.read(at, width), "big")
        place = chance.choice(self.places)
        packed = damage.COMPRESSED | chance.randrange(256) << 54
        return chance.choice(
            [
                *[chance.choice(EDGES)] * 3,
                old ^ 1 << chance.randrange(8 * width),
                old + chance.choice([1, -1, 8, 512, -512, image.cluster, -image.cluster]),
                place | chance.choice([0, damage.COPIED, packed]),
                place + chance.choice([0, 8, 512]),
                chance.getrandbits(8 * width),
            ]
        ) % (1 << 8 * width)

    def mutate(self, chance):
        """Change one to three fields, of kinds that are as likely as each other.

        Answers what was changed to what.
        """
        told = []
        for _ in range(chance.choice([1, 2, 2, 3])):
            kind = chance.choice(sorted(self.groups))
            at, width = chance.choice(self.groups[kind])
            value = self._value(chance, at, width)
            self.image.write(at, value.to_bytes(width, "big"))
            told.append(f"{kind} at {at:#x}: {value:#x}")
        if chance.random() < 0.1:
            size = chance.randrange(self.image.path.stat().st_size)
            os.truncate(self.image.path, size)
            told.append(f"{size} bytes left")
        return told
