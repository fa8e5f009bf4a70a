# SPDX-License-Identifier: Apache-2.0
"""Volumes: a header that has been read, and the cipher that one of its slots gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from blockyard.errors import BlockyardError, InvalidOption
from blockyard.schema.crypto import QCryptoBlockInfoLUKS, QCryptoBlockInfoLUKSSlot, QCryptoIVGenAlgo
from blockyard_formats_luks.cipher import Cipher
from blockyard_formats_luks.derivation import Budget, Key, aside
from blockyard_formats_luks.header import HEADER_BYTES, SECTOR, Header, parse
from blockyard_formats_luks.keyslot import try_slot
from blockyard_formats_luks.method import Method

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Read = Callable[[int, int], Awaitable[bytes]]

__all__ = ["Volume", "find_key", "open_luks", "search_budget", "slot_key"]

#: Seconds of processor time that looking for a key may burn, all slots together.
_SECONDS = 30


@attrs.define(eq=False)
class Volume:
    """An open volume; whoever opened it closes it."""

    header: Header
    method: Method
    #: None when it was opened without a passphrase, and after :meth:`close`.
    cipher: Cipher | None = None

    @property
    def address(self) -> int:
        """Of the native ``struct by_crypto`` (``csrc/crypto.h``); 0 without one."""
        return self.cipher.address if self.cipher else 0

    @property
    def payload_offset(self) -> int:
        """Where the data begins, in bytes; 0 for a detached header."""
        return self.header.payload_offset

    @property
    def info(self) -> QCryptoBlockInfoLUKS:
        """What QMP tells about it."""
        essiv = self.method.ivgen is QCryptoIVGenAlgo.ESSIV
        return QCryptoBlockInfoLUKS(
            cipher_alg=self.method.cipher,
            cipher_mode=self.method.mode,
            ivgen_alg=self.method.ivgen,
            ivgen_hash_alg=self.method.ivgen_hash if essiv else None,
            hash_alg=self.method.hash,
            detached_header=self.payload_offset == 0,
            payload_offset=self.payload_offset,
            master_key_iters=self.header.digest_rounds,
            uuid=self.header.uuid,
            slots=[
                QCryptoBlockInfoLUKSSlot(
                    active=slot.active,
                    iters=slot.rounds if slot.active else None,
                    stripes=slot.stripes if slot.active else None,
                    key_offset=slot.sector * SECTOR,
                )
                for slot in self.header.slots
            ],
        )

    def close(self) -> None:
        """Wipe and free the cipher; nothing uses it any more."""
        if self.cipher is not None:
            self.cipher.close()
            self.cipher = None


async def open_luks(read: Read, passphrase: bytes | None, *, detached: bool = False) -> Volume:
    """Open a volume.

    ``read(offset, length)`` answers the bytes of the file, or the part of one, that begins
    with the header; fewer at its end.  Without a passphrase the volume can tell about
    itself and no more.

    :raises BlockyardError: with QEMU's text.
    """
    header = parse(await read(0, HEADER_BYTES), detached=detached)
    volume = Volume(header, Method.of(header))
    if passphrase is not None:
        with await find_key(volume, read, passphrase) as key:
            volume.cipher = Cipher(volume.method, key)
    return volume


def search_budget() -> Budget:
    """What looking for a passphrase's slots may burn."""
    return Budget.of_seconds(_SECONDS)


async def find_key(volume: Volume, read: Read, passphrase: bytes) -> Key:
    """The master key, from the first slot that the passphrase opens.

    :raises BlockyardError: if it opens none, or that takes too long.
    """
    budget = search_budget()
    for index in range(len(volume.header.slots)):
        key = await slot_key(volume, read, index, passphrase, budget)
        if key is not None:
            return key
    raise InvalidOption("Invalid password, cannot unlock any keyslot")


async def slot_key(
    volume: Volume, read: Read, index: int, passphrase: bytes, budget: Budget
) -> Key | None:
    """The master key, if the passphrase opens slot ``index``."""
    header, method = volume.header, volume.method
    slot = header.slots[index]
    if not slot.active:
        return None
    length = -(-header.material_bytes // SECTOR) * SECTOR
    found = await read(slot.sector * SECTOR, length)
    material = Key(found.ljust(length, b"\0"))
    if len(material) != length:
        raise BlockyardError("Could not read encryption header")
    return await aside(budget, lambda: try_slot(header, method, slot, passphrase, material, budget))
