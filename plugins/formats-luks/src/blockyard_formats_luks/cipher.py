# SPDX-License-Identifier: Apache-2.0
"""Ciphers with their keys, as the native half has them."""

from __future__ import annotations

import errno
from typing import Any

from blockyard.errors import InvalidOption, from_errno
from blockyard.schema.crypto import (
    QCryptoCipherAlgo,
    QCryptoCipherMode,
    QCryptoHashAlgo,
    QCryptoIVGenAlgo,
)
from blockyard_formats_luks.method import Method
from blockyard_formats_luks.native import ffi, lib

__all__ = ["Cipher", "legacy_aes", "native_hash"]

_LEGACY_KEY_BYTES = 16
_LEGACY = Method(
    cipher=QCryptoCipherAlgo.AES_128,
    mode=QCryptoCipherMode.CBC,
    ivgen=QCryptoIVGenAlgo.PLAIN64,
    ivgen_hash=None,
    hash=QCryptoHashAlgo.SHA256,
)


class Cipher:
    """A cipher with its key: a native ``struct by_crypto``.

    Whoever opened it closes it, once nothing uses :attr:`address` any more.
    """

    def __init__(self, method: Method, key: Any) -> None:
        """``key`` is copied.

        :raises InvalidOption: if libgcrypt does not have the cipher.
        """
        out = ffi.new("struct by_crypto **")
        native = ffi.new(
            "struct by_luks_method *",
            {
                "cipher": getattr(lib, f"BY_LUKS_{method.family.upper()}"),
                "mode": getattr(lib, f"BY_LUKS_{method.mode.name}"),
                "ivgen": getattr(lib, f"BY_LUKS_{method.ivgen.name}"),
                "ivgen_hash": native_hash(method.ivgen_hash) if method.ivgen_hash else 0,
            },
        )
        result = lib.by_luks_crypto_open(native, ffi.from_buffer(key), len(key), out)
        if result == -errno.ENOTSUP:
            raise InvalidOption(f"Unsupported cipher algorithm {method.cipher.value}")
        if result < 0:
            raise from_errno(result, "Cannot initialize cipher")
        self.native = out[0]

    @property
    def address(self) -> int:
        """Of the ``struct by_crypto``; 0 when it is closed."""
        return int(ffi.cast("uintptr_t", self.native))

    def encrypt(self, offset: int, buffer: Any) -> None:
        """Encrypt a writable buffer in place; both in whole sectors, ``offset`` on the disk.

        :raises ImageIOError: EINVAL if they are not.
        """
        _check(lib.by_luks_encrypt(self.native, offset, _writable(buffer), len(buffer)))

    def decrypt(self, offset: int, buffer: Any) -> None:
        """The reverse of :meth:`encrypt`."""
        _check(lib.by_luks_decrypt(self.native, offset, _writable(buffer), len(buffer)))

    def close(self) -> None:
        """Wipe and free it; once more does nothing."""
        native, self.native = self.native, ffi.NULL
        lib.by_luks_crypto_close(native)


def legacy_aes(password: bytes) -> Cipher:
    """The encryption of old qcow and qcow2 images.

    That is AES-128 in CBC mode; the key is the password's first 16 bytes, and zeroes
    after them if there are fewer.
    """
    key = bytearray(password[:_LEGACY_KEY_BYTES].ljust(_LEGACY_KEY_BYTES, b"\0"))
    try:
        return Cipher(_LEGACY, key)
    finally:
        lib.by_luks_wipe(ffi.from_buffer(key), len(key))


def native_hash(algorithm: QCryptoHashAlgo) -> int:
    """The native half's number of a hash."""
    number: int = getattr(lib, f"BY_LUKS_{algorithm.name}")
    return number


def _writable(buffer: Any) -> Any:
    return ffi.from_buffer("char[]", buffer, require_writable=True)


def _check(result: int) -> None:
    if result < 0:
        raise from_errno(result)
