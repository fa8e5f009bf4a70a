# SPDX-License-Identifier: Apache-2.0
"""New volumes."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import attrs

from blockyard.errors import InvalidOption
from blockyard.schema.crypto import (
    QCryptoCipherAlgo,
    QCryptoCipherMode,
    QCryptoHashAlgo,
    QCryptoIVGenAlgo,
)
from blockyard_formats_luks.cipher import Cipher
from blockyard_formats_luks.derivation import Budget, Key, aside, rounds_for
from blockyard_formats_luks.header import (
    FIRST_SECTOR,
    KEY_SLOTS,
    SALT_BYTES,
    SECTOR,
    Header,
    KeySlot,
    key_slot_sectors,
    pack,
)
from blockyard_formats_luks.keyslot import (
    DIGEST_LENGTH,
    ROUNDS_MIN,
    digest_of,
    make_slot,
    random_bytes,
)
from blockyard_formats_luks.method import Method
from blockyard_formats_luks.volume import Volume

if TYPE_CHECKING:
    from blockyard.schema.crypto import QCryptoBlockCreateOptionsLUKS

__all__ = [
    "ITER_TIME",
    "Created",
    "_method_for",
    "checked_iter_time",
    "create_luks",
    "header_length",
]

#: Milliseconds that opening takes unless said.
ITER_TIME = 2000
#: The digest of the master key is worth an eighth of that, as for cryptsetup: there are
#: eight slots to be tried.
_DIGEST_SHARE = 8


@attrs.frozen(kw_only=True)
class Created:
    """A volume that is to be written.

    The file has to have :attr:`length` bytes for it, all of which may be zeroes but for
    :attr:`pieces`.
    """

    #: Bytes that header and key material take; the data begins there, unless detached.
    length: int
    #: What is to be written, by offset: key material, then the header.
    pieces: tuple[tuple[int, bytes], ...] = attrs.field(repr=False)
    #: Ready for use; whoever asked for it closes it.
    volume: Volume


def _method_for(options: QCryptoBlockCreateOptionsLUKS) -> Method:
    """What the options ask for, checked.

    :raises InvalidOption: with QEMU's text.
    """
    ivgen = options.ivgen_alg or QCryptoIVGenAlgo.PLAIN64
    ivgen_hash = options.ivgen_hash_alg
    if ivgen is QCryptoIVGenAlgo.ESSIV:
        ivgen_hash = ivgen_hash or QCryptoHashAlgo.SHA256
    method = Method(
        cipher=options.cipher_alg or QCryptoCipherAlgo.AES_256,
        mode=options.cipher_mode or QCryptoCipherMode.XTS,
        ivgen=ivgen,
        ivgen_hash=ivgen_hash,
        hash=options.hash_alg or QCryptoHashAlgo.SHA256,
    )
    method.check()
    return method


def header_length(options: QCryptoBlockCreateOptionsLUKS) -> int:
    """The bytes that header and key material of such a volume take.

    :raises InvalidOption: as :func:`create_luks`.
    """
    return _length(_method_for(options).key_bytes)


def checked_iter_time(milliseconds: int | None) -> int:
    """The time that was asked for.

    :raises InvalidOption: if it is not positive.
    """
    if milliseconds is None:
        return ITER_TIME
    if milliseconds <= 0:
        raise InvalidOption("Parameter 'iter-time' expects a positive number")
    return milliseconds


async def create_luks(
    options: QCryptoBlockCreateOptionsLUKS, passphrase: bytes, *, detached: bool = False
) -> Created:
    """Make a volume whose first slot the passphrase opens.

    ``options.key_secret`` is not looked at.

    :raises BlockyardError: with QEMU's text.
    """
    method = _method_for(options)
    iter_time = checked_iter_time(options.iter_time)
    budget = Budget()
    return await aside(budget, lambda: _create(method, passphrase, iter_time, detached, budget))


def _create(
    method: Method, passphrase: bytes, iter_time: int, detached: bool, budget: Budget
) -> Created:
    with random_bytes(method.key_bytes) as key:
        header = _new_header(method, key, iter_time, detached, budget)
        first = header.slots[0]
        slot, material = make_slot(header, method, first, passphrase, key, iter_time, budget)
        header = header.with_slot(0, slot)
        return Created(
            length=_length(method.key_bytes),
            pieces=((slot.sector * SECTOR, material), (0, pack(header))),
            volume=Volume(header, method, Cipher(method, key)),
        )


def _new_header(method: Method, key: Key, iter_time: int, detached: bool, budget: Budget) -> Header:
    rounds = rounds_for(method.hash, DIGEST_LENGTH, iter_time, budget, _DIGEST_SHARE)
    step = key_slot_sectors(method.key_bytes)
    header = Header(
        cipher_name=method.family,
        cipher_mode=method.mode_text,
        hash_spec=method.hash.value,
        payload_sector=0 if detached else _length(method.key_bytes) // SECTOR,
        key_bytes=method.key_bytes,
        digest=b"",
        digest_salt=bytes(random_bytes(SALT_BYTES)),
        digest_rounds=max(rounds, ROUNDS_MIN),
        uuid=str(uuid.uuid4()),
        slots=tuple(KeySlot(sector=FIRST_SECTOR + i * step) for i in range(KEY_SLOTS)),
    )
    return attrs.evolve(header, digest=bytes(digest_of(header, method, key, budget)))


def _length(key_bytes: int) -> int:
    return (FIRST_SECTOR + KEY_SLOTS * key_slot_sectors(key_bytes)) * SECTOR
