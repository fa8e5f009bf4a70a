# SPDX-License-Identifier: Apache-2.0
"""Key slots: the master key, encrypted with a passphrase (LUKS specification, 3 and 4)."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from blockyard.errors import from_errno
from blockyard_formats_luks.cipher import Cipher, native_hash
from blockyard_formats_luks.derivation import Budget, Key, derive, rounds_for
from blockyard_formats_luks.header import SALT_BYTES, SECTOR, STRIPES, Header, KeySlot
from blockyard_formats_luks.native import ffi, lib

if TYPE_CHECKING:
    from blockyard_formats_luks.method import Method

__all__ = ["DIGEST_LENGTH", "ROUNDS_MIN", "digest_of", "make_slot", "random_bytes", "try_slot"]

#: Bytes of the header's digest of the master key.
DIGEST_LENGTH = 20
#: Fewer rounds are never used for anything.
ROUNDS_MIN = 1000


def random_bytes(length: int) -> Key:
    """Bytes fit for keys."""
    out = Key(length)
    if (result := lib.by_luks_random(ffi.from_buffer(out), length)) < 0:
        raise from_errno(result, "Unable to get random bytes")
    return out


def digest_of(header: Header, method: Method, key: bytearray, budget: Budget) -> Key:
    """What the header keeps of the master key, to recognise it by.  Burns."""
    return derive(method.hash, key, header.digest_salt, header.digest_rounds, DIGEST_LENGTH, budget)


def try_slot(
    header: Header,
    method: Method,
    slot: KeySlot,
    passphrase: bytes,
    material: Key,
    budget: Budget,
) -> Key | None:
    """The master key, if the passphrase opens this slot.  Burns, and spoils ``material``.

    ``material`` is what is on disk at the slot's sector, in whole sectors.
    """
    with derive(
        method.hash, passphrase, slot.salt, slot.rounds, header.key_bytes, budget
    ) as slot_key:
        cipher = Cipher(method, slot_key)
    try:
        cipher.decrypt(0, material)
    finally:
        cipher.close()
    key = Key(header.key_bytes)
    result = lib.by_luks_merge(
        native_hash(method.hash),
        ffi.from_buffer(material),
        header.key_bytes,
        STRIPES,
        ffi.from_buffer(key),
    )
    material.wipe()
    if result < 0:
        raise from_errno(result, "Cannot merge key")
    if hmac.compare_digest(digest_of(header, method, key, budget), header.digest):
        return key
    key.wipe()
    return None


def make_slot(
    header: Header,
    method: Method,
    slot: KeySlot,
    passphrase: bytes,
    key: bytearray,
    iter_time: int,
    budget: Budget,
) -> tuple[KeySlot, bytes]:
    """The slot that the passphrase opens, and the key material to be written.  Burns.

    ``iter_time``: milliseconds that opening shall take on a machine like this.
    """
    salt = bytes(random_bytes(SALT_BYTES))
    rounds = max(rounds_for(method.hash, header.key_bytes, iter_time, budget), ROUNDS_MIN)
    with Key(-(-header.material_bytes // SECTOR) * SECTOR) as material:
        result = lib.by_luks_split(
            native_hash(method.hash),
            ffi.from_buffer(key),
            header.key_bytes,
            STRIPES,
            ffi.from_buffer(material),
        )
        if result < 0:
            raise from_errno(result, "Cannot split key")
        with derive(method.hash, passphrase, salt, rounds, header.key_bytes, budget) as slot_key:
            cipher = Cipher(method, slot_key)
        try:
            cipher.encrypt(0, material)
        finally:
            cipher.close()
        return slot.enabled(rounds=rounds, salt=salt), bytes(material)
