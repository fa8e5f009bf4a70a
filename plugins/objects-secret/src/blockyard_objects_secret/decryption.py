# SPDX-License-Identifier: Apache-2.0
"""Secrets that another secret encrypts: AES-256 in CBC mode, padded as PKCS #7 has it."""

from __future__ import annotations

from blockyard.errors import InvalidOption
from blockyard_objects_secret.base64 import decode

__all__ = ["decrypt"]

_KEY_BYTES = 32
_BLOCK = 16


def decrypt(ciphertext: bytes, key: bytes, iv: str | None, *, encoded: bool) -> bytes:
    """The text without its padding; ``iv`` is in base64, and the ciphertext if ``encoded``.

    :raises InvalidOption: if something has the wrong length, with QEMU's text.
    """
    if len(key) != _KEY_BYTES:
        raise InvalidOption("Key should be 32 bytes in length")
    if iv is None:
        raise InvalidOption("IV is required to decrypt secret")
    vector = decode(iv.encode())
    if len(vector) != _BLOCK:
        raise InvalidOption(f"IV should be 16 bytes in length not {len(vector)}")
    if encoded:
        ciphertext = decode(ciphertext)
    if len(ciphertext) % _BLOCK:
        raise InvalidOption(f"Length {len(ciphertext)} must be a multiple of block size {_BLOCK}")
    return _unpadded(_aes_cbc(ciphertext, key, vector))


def _aes_cbc(ciphertext: bytes, key: bytes, vector: bytes) -> bytes:
    # Imported here: it takes longer than a daemon takes to start.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    decryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).decryptor()
    return decryptor.update(ciphertext) + decryptor.finalize()


def _unpadded(text: bytes) -> bytes:
    """Only the padding's length is looked at, as in QEMU; none at all is fine there too."""
    padding = text[-1] if text else _BLOCK
    if padding > _BLOCK or padding > len(text):
        raise InvalidOption(
            f"Incorrect number of padding bytes ({padding}) found on decrypted data"
        )
    return text[: len(text) - padding]
