# SPDX-License-Identifier: Apache-2.0
"""Ciphers, vectors and key derivation against other implementations of them."""

import hashlib
import os
import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher as Other
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from blockyard.errors import BlockyardError, ImageIOError, InvalidOption
from blockyard.schema.crypto import (
    QCryptoCipherAlgo,
    QCryptoCipherMode,
    QCryptoHashAlgo,
    QCryptoIVGenAlgo,
)
from blockyard_formats_luks.crypto import Cipher, legacy_aes
from blockyard_formats_luks.derivation import Budget, Key, derive, rounds_for
from blockyard_formats_luks.method import Method

SECTORS = (0, 1, 77, (1 << 32) - 1, 1 << 32, (1 << 52) + 3)
DATA = bytes(range(256)) * 2
BY_BYTES = {
    16: QCryptoCipherAlgo.AES_128,
    24: QCryptoCipherAlgo.AES_192,
    32: QCryptoCipherAlgo.AES_256,
}


def method(key: bytes, mode: str, ivgen: str, ivgen_hash: str | None = None) -> Method:
    one = len(key) // 2 if mode == "xts" else len(key)
    return Method(
        cipher=BY_BYTES[one],
        mode=QCryptoCipherMode(mode),
        ivgen=QCryptoIVGenAlgo(ivgen),
        ivgen_hash=QCryptoHashAlgo(ivgen_hash) if ivgen_hash else None,
        hash=QCryptoHashAlgo.SHA256,
    )


def encrypted(cipher: Cipher, sector: int, data: bytes = DATA) -> bytes:
    buffer = bytearray(data)
    cipher.encrypt(sector * 512, buffer)
    result = bytes(buffer)
    cipher.decrypt(sector * 512, buffer)
    assert buffer == data
    return result


def by_other(key: bytes, mode: Any) -> bytes:
    encryptor = Other(algorithms.AES(key), mode).encryptor()
    return encryptor.update(DATA) + encryptor.finalize()


@pytest.mark.parametrize("length", [16, 24, 32])
@pytest.mark.parametrize("mode", ["ecb", "cbc", "ctr", "xts"])
@pytest.mark.parametrize("ivgen", ["plain", "plain64"])
def test_aes_and_counted_vectors(length: int, mode: str, ivgen: str) -> None:
    key = os.urandom(length * 2 if mode == "xts" else length)
    cipher = Cipher(method(key, mode, ivgen), key)
    for sector in SECTORS:
        number = sector if ivgen == "plain64" else sector % (1 << 32)
        vector = struct.pack("<QQ", number, 0)
        others = {"cbc": modes.CBC, "ctr": modes.CTR, "xts": modes.XTS}
        other = others[mode](vector) if mode in others else modes.ECB()
        if (mode, length) == ("xts", 24):
            # The other implementation has no such key; decryption is all that is shown.
            assert encrypted(cipher, sector) != DATA
        else:
            assert encrypted(cipher, sector) == by_other(key, other)
    cipher.close()


@pytest.mark.parametrize(("name", "length"), [("sha256", 16), ("sha256", 32), ("md5", 32)])
def test_vectors_encrypted_with_the_keys_digest(name: str, length: int) -> None:
    key = os.urandom(length)
    cipher = Cipher(method(key, "cbc", "essiv", name), key)
    digest = hashlib.new(name, key).digest()
    for sector in SECTORS:
        block = Other(algorithms.AES(digest), modes.ECB()).encryptor()
        vector = block.update(struct.pack("<QQ", sector, 0))
        assert encrypted(cipher, sector) == by_other(key, modes.CBC(vector))
    cipher.close()


def test_each_sector_has_a_vector_of_its_own() -> None:
    key = os.urandom(64)
    cipher = Cipher(method(key, "xts", "plain64"), key)
    together = encrypted(cipher, 5, DATA * 3)
    assert together == b"".join(encrypted(cipher, 5 + i) for i in range(3))
    assert len({together[at : at + 512] for at in (0, 512, 1024)}) == 3
    cipher.close()


@pytest.mark.parametrize(
    "password", [b"", b"short", b"sixteen bytes in", b"more than sixteen bytes"]
)
def test_the_cipher_of_old_images(password: bytes) -> None:
    cipher = legacy_aes(password)
    key = password[:16].ljust(16, b"\0")
    for sector in SECTORS:
        assert encrypted(cipher, sector) == by_other(key, modes.CBC(struct.pack("<QQ", sector, 0)))
    cipher.close()


def test_parts_of_sectors_are_refused() -> None:
    cipher = legacy_aes(b"word")
    for offset, length in ((1, 512), (0, 511), (511, 512)):
        with pytest.raises(ImageIOError):
            cipher.encrypt(offset, bytearray(length))
    with pytest.raises((BufferError, TypeError, ValueError)):
        cipher.encrypt(0, bytes(512))
    cipher.close()
    cipher.close()
    assert cipher.address == 0


def test_a_key_that_the_library_does_not_take() -> None:
    wanted = Method(
        cipher=QCryptoCipherAlgo.TWOFISH_192,
        mode=QCryptoCipherMode.XTS,
        ivgen=QCryptoIVGenAlgo.PLAIN64,
        ivgen_hash=None,
        hash=QCryptoHashAlgo.SHA256,
    )
    with pytest.raises(InvalidOption, match="^Unsupported cipher algorithm twofish-192$"):
        Cipher(wanted, os.urandom(48))


# -- derivation


@pytest.mark.parametrize("name", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize(("rounds", "length"), [(1, 20), (2, 1), (1000, 64), (4097, 100)])
def test_keys_from_passphrases(name: str, rounds: int, length: int) -> None:
    for word, salt in ((b"", b""), (b"w" * 200, os.urandom(32))):
        made = derive(QCryptoHashAlgo(name), word, salt, rounds, length, Budget())
        assert made == hashlib.pbkdf2_hmac(name, word, salt, rounds, length)


def test_a_known_key() -> None:
    """RFC 6070, the third vector."""
    made = derive(QCryptoHashAlgo.SHA1, b"password", b"salt", 4096, 20, Budget())
    assert made.hex() == "4b007901b765489abead49d926f721d065a429c1"


def test_a_budget_is_spent_once() -> None:
    budget = Budget(left=30_000_000)
    with pytest.raises(BlockyardError, match="^PBKDF iterations 1099511627776 take too long$"):
        derive(QCryptoHashAlgo.SHA256, b"word", b"salt", 1 << 40, 32, budget)
    with pytest.raises(BlockyardError, match="^PBKDF iterations 100000 take too long$"):
        derive(QCryptoHashAlgo.SHA256, b"word", b"salt", 100_000, 32, budget)


@pytest.mark.parametrize("length", [32, 64])
def test_what_is_hopeless_is_known_after_a_moment(length: int) -> None:
    budget = Budget.of_seconds(30)
    with pytest.raises(BlockyardError, match="^PBKDF iterations 4294967295 take too long$"):
        derive(QCryptoHashAlgo.SHA256, b"word", b"salt", (1 << 32) - 1, length, budget)
    assert budget.left > 25_000_000_000


def test_rounds_grow_with_the_time_and_shrink_with_the_share() -> None:
    def count(milliseconds: int, share: int = 1) -> int:
        return rounds_for(QCryptoHashAlgo.SHA256, 32, milliseconds, Budget(), share)

    assert count(2000) == pytest.approx(2 * count(1000), rel=0.01)
    assert count(2000, 8) == pytest.approx(count(250), rel=0.01)
    assert count(2000) > 10000


def test_keys_are_wiped() -> None:
    with Key(b"secret") as key:
        assert key == b"secret"
    assert key == bytes(6)
