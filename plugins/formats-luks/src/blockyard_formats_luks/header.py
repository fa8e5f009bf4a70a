# SPDX-License-Identifier: Apache-2.0
"""The header of a LUKS volume, version 1 (LUKS On-Disk Format Specification, 2.1)."""

from __future__ import annotations

import struct
from typing import Final

import attrs

from blockyard.errors import InvalidOption

__all__ = [
    "HEADER_BYTES",
    "KEY_SLOTS",
    "SALT_BYTES",
    "SECTOR",
    "STRIPES",
    "Header",
    "KeySlot",
    "check_layout",
    "key_slot_sectors",
    "pack",
    "parse",
]

SECTOR: Final = 512
#: Length of the header itself.
HEADER_BYTES: Final = 592
KEY_SLOTS: Final = 8
SALT_BYTES: Final = 32
#: The only number of stripes that is in use.
STRIPES: Final = 4000
#: Where key material may begin, in sectors; it is also the alignment of each piece of it.
FIRST_SECTOR: Final = 4096 // SECTOR

_MAGIC = b"LUKS\xba\xbe"
_VERSION = 1
_ENABLED = 0x00AC71F3
_DISABLED = 0x0000DEAD
_HEAD = struct.Struct(">6sH32s32s32sII20s32sI40s")
_SLOT = struct.Struct(">II32sII")
assert _HEAD.size + KEY_SLOTS * _SLOT.size == HEADER_BYTES


@attrs.frozen(kw_only=True)
class KeySlot:
    """Where one encrypted copy of the master key is, and how a passphrase opens it."""

    #: As on disk; :meth:`parse` takes the two values there are.
    state: int = _DISABLED
    #: Rounds of PBKDF2.
    rounds: int = 0
    salt: bytes = attrs.field(default=bytes(SALT_BYTES), repr=False)
    #: Where the key material is, in sectors.
    sector: int
    stripes: int = STRIPES

    @property
    def active(self) -> bool:
        """Whether a passphrase opens it."""
        return self.state == _ENABLED

    def enabled(self, *, rounds: int, salt: bytes) -> KeySlot:
        """The slot in use."""
        return attrs.evolve(self, state=_ENABLED, rounds=rounds, salt=salt)

    def disabled(self) -> KeySlot:
        """The slot out of use, with nothing left of how it was opened."""
        return KeySlot(sector=self.sector, stripes=self.stripes)


@attrs.frozen(kw_only=True)
class Header:
    """A header's fields; strings as on disk, without what follows their NUL."""

    cipher_name: str
    #: ``MODE-IVGEN`` or ``MODE-IVGEN:HASH``.
    cipher_mode: str
    hash_spec: str
    #: Where the data begins, in sectors; 0 for a detached header.
    payload_sector: int
    #: Length of the master key.
    key_bytes: int
    digest: bytes = attrs.field(repr=False)
    digest_salt: bytes = attrs.field(repr=False)
    digest_rounds: int
    uuid: str
    slots: tuple[KeySlot, ...]

    @property
    def payload_offset(self) -> int:
        """Where the data begins, in bytes."""
        return self.payload_sector * SECTOR

    @property
    def material_bytes(self) -> int:
        """Length of one slot's key material, without the padding to a sector."""
        return self.key_bytes * STRIPES

    def with_slot(self, index: int, slot: KeySlot) -> Header:
        """The header with another slot ``index``."""
        slots = (*self.slots[:index], slot, *self.slots[index + 1 :])
        return attrs.evolve(self, slots=slots)


def key_slot_sectors(key_bytes: int, stripes: int = STRIPES) -> int:
    """The sectors that a slot's key material takes, as cryptsetup and QEMU lay them out."""
    sectors = -(-key_bytes * stripes // SECTOR)
    return -(-sectors // FIRST_SECTOR) * FIRST_SECTOR


def parse(data: bytes, *, detached: bool = False) -> Header:
    """The header at the beginning of ``data``, checked but for the names of algorithms.

    What is missing at the end of ``data`` counts as zeroes.

    :raises InvalidOption: with QEMU's text.
    """
    data = data[:HEADER_BYTES].ljust(HEADER_BYTES, b"\0")
    magic, version, name, mode, spec, *rest = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise InvalidOption("Volume is not in LUKS format")
    if version != _VERSION:
        raise InvalidOption(f"LUKS version {version} is not supported")
    payload_sector, key_bytes, digest, digest_salt, digest_rounds, uuid = rest
    header = Header(
        cipher_name=_text(name, "cipher name"),
        cipher_mode=_text(mode, "cipher mode"),
        hash_spec=_text(spec, "hash spec"),
        payload_sector=payload_sector,
        key_bytes=key_bytes,
        digest=digest,
        digest_salt=digest_salt,
        digest_rounds=digest_rounds,
        uuid=uuid.split(b"\0")[0].decode(errors="replace"),
        slots=tuple(_slot(data, index) for index in range(KEY_SLOTS)),
    )
    check_layout(header, detached=detached)
    return header


def _text(field: bytes, what: str) -> str:
    text, end, _ = field.partition(b"\0")
    if not end:
        raise InvalidOption(f"LUKS header {what} is not NUL terminated")
    return text.decode(errors="replace")


def _slot(data: bytes, index: int) -> KeySlot:
    state, rounds, salt, sector, stripes = _SLOT.unpack_from(data, _HEAD.size + index * _SLOT.size)
    return KeySlot(state=state, rounds=rounds, salt=salt, sector=sector, stripes=stripes)


def pack(header: Header) -> bytes:
    """The header as on disk."""
    head = _HEAD.pack(
        _MAGIC,
        _VERSION,
        header.cipher_name.encode(),
        header.cipher_mode.encode(),
        header.hash_spec.encode(),
        header.payload_sector,
        header.key_bytes,
        header.digest,
        header.digest_salt,
        header.digest_rounds,
        header.uuid.encode(),
    )
    return head + b"".join(
        _SLOT.pack(slot.state, slot.rounds, slot.salt, slot.sector, slot.stripes)
        for slot in header.slots
    )


# -- the layout


def check_layout(header: Header, *, detached: bool) -> None:
    """Refuse parts that lie over each other, and counts that make no sense.

    :raises InvalidOption: with QEMU's text.
    """
    if not detached and header.payload_sector < FIRST_SECTOR:
        raise InvalidOption("LUKS payload is overlapping with the header")
    if header.digest_rounds == 0:
        raise InvalidOption("LUKS key iteration count is zero")
    for index, slot in enumerate(header.slots):
        _check_slot(index, slot)
        end = slot.sector + key_slot_sectors(header.key_bytes)
        if not detached and end > header.payload_sector:
            raise InvalidOption(f"Keyslot {index} is overlapping with the encrypted payload")
        for other in range(index + 1, KEY_SLOTS):
            if _overlap(slot, header.slots[other], key_slot_sectors(header.key_bytes)):
                raise InvalidOption(f"Keyslots {index} and {other} are overlapping in the header")


def _check_slot(index: int, slot: KeySlot) -> None:
    if slot.stripes != STRIPES:
        # A C int: QEMU prints it with %d.
        stripes = slot.stripes - (1 << 32) if slot.stripes >> 31 else slot.stripes
        raise InvalidOption(f"Keyslot {index} is corrupted (stripes {stripes} != {STRIPES})")
    if slot.state not in (_ENABLED, _DISABLED):
        raise InvalidOption(f"Keyslot {index} state (active/disable) is corrupted")
    if slot.active and slot.rounds == 0:
        raise InvalidOption(f"Keyslot {index} iteration count is zero")
    if slot.sector < FIRST_SECTOR:
        raise InvalidOption(f"Keyslot {index} is overlapping with the LUKS header")


def _overlap(one: KeySlot, other: KeySlot, sectors: int) -> bool:
    return abs(one.sector - other.sector) < max(sectors, 1)
