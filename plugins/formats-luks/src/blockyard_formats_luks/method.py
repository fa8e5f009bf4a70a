# SPDX-License-Identifier: Apache-2.0
"""How a volume is encrypted: names in headers and options, and what they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import attrs

from blockyard.errors import InvalidOption
from blockyard.schema.crypto import (
    QCryptoCipherAlgo,
    QCryptoCipherMode,
    QCryptoHashAlgo,
    QCryptoIVGenAlgo,
)

if TYPE_CHECKING:
    from blockyard.schema.declare import QEnum
    from blockyard_formats_luks.header import Header

    _Named = TypeVar("_Named", bound=QEnum)

__all__ = ["DIGEST_BYTES", "Method", "key_length"]

_A, _M, _I, _H = QCryptoCipherAlgo, QCryptoCipherMode, QCryptoIVGenAlgo, QCryptoHashAlgo

#: A cipher's name in headers, and its variants by the length of one key in bytes.
_CIPHERS = {
    "aes": {16: _A.AES_128, 24: _A.AES_192, 32: _A.AES_256},
    "cast5": {16: _A.CAST5_128},
    "serpent": {16: _A.SERPENT_128, 24: _A.SERPENT_192, 32: _A.SERPENT_256},
    "twofish": {16: _A.TWOFISH_128, 24: _A.TWOFISH_192, 32: _A.TWOFISH_256},
    "sm4": {16: _A.SM4},
}
#: How ESSIV's errors spell a cipher.
_SPELLED = {"aes": "AES", "serpent": "Serpent", "twofish": "Twofish"}

#: Bytes of a digest.
DIGEST_BYTES = {
    _H.MD5: 16,
    _H.SHA1: 20,
    _H.SHA224: 28,
    _H.SHA256: 32,
    _H.SHA384: 48,
    _H.SHA512: 64,
    _H.RIPEMD160: 20,
    _H.SM3: 32,
}


@attrs.frozen(kw_only=True)
class Method:
    """Cipher, mode, initialization vectors, and the hash of the key derivation."""

    cipher: QCryptoCipherAlgo
    mode: QCryptoCipherMode
    ivgen: QCryptoIVGenAlgo
    #: What was given; of no effect but with ESSIV.
    ivgen_hash: QCryptoHashAlgo | None
    hash: QCryptoHashAlgo

    @property
    def family(self) -> str:
        """The cipher's name in headers.

        :raises InvalidOption: if LUKS has none for it.
        """
        for name, variants in _CIPHERS.items():
            if self.cipher in variants.values():
                return name
        raise InvalidOption(f"Algorithm '{self.cipher.value}' not supported")

    @property
    def key_bytes(self) -> int:
        """Length of the master key."""
        return key_length(self.cipher) * (2 if self.mode is _M.XTS else 1)

    @property
    def mode_text(self) -> str:
        """The cipher mode as headers spell it."""
        text = f"{self.mode.value}-{self.ivgen.value}"
        return f"{text}:{self.ivgen_hash.value}" if self.ivgen_hash else text

    def check(self) -> None:
        """Refuse combinations that do not exist.

        :raises InvalidOption: with QEMU's text.
        """
        family = self.family
        if self.ivgen is _I.ESSIV:
            _check_essiv(family, self.cipher, self.ivgen_hash)
        if self.mode is _M.XTS and self.cipher is _A.CAST5_128:
            raise InvalidOption("Unsupported cipher mode xts")

    @classmethod
    def of(cls, header: Header) -> Method:
        """What a header's strings name.

        :raises InvalidOption: with QEMU's text.
        """
        mode_text, dash, rest = header.cipher_mode.partition("-")
        if not dash:
            raise InvalidOption(f"Unexpected cipher mode string format '{header.cipher_mode}'")
        ivgen_text, colon, ivgen_hash_text = rest.partition(":")
        ivgen_hash = _named(_H, ivgen_hash_text, "Hash algorithm") if colon else None
        mode = _named(_M, mode_text, "Cipher mode")
        method = cls(
            cipher=_variant(header.cipher_name, mode, header.key_bytes),
            mode=mode,
            ivgen_hash=ivgen_hash,
            hash=_named(_H, header.hash_spec, "Hash algorithm"),
            ivgen=_named(_I, ivgen_text, "IV generator"),
        )
        method.check()
        return method


def key_length(cipher: QCryptoCipherAlgo) -> int:
    """Bytes of one key of a cipher that LUKS has a name for."""
    return next(
        length
        for variants in _CIPHERS.values()
        for length, variant in variants.items()
        if variant is cipher
    )


def _named(kind: type[_Named], text: str, what: str) -> _Named:
    try:
        return kind(text)
    except ValueError:
        raise InvalidOption(f"{what} '{text}' not supported") from None


def _variant(name: str, mode: QCryptoCipherMode, key_bytes: int) -> QCryptoCipherAlgo:
    one = key_bytes // 2 if mode is _M.XTS else key_bytes
    found = _CIPHERS.get(name, {}).get(one)
    if found is not None and mode is _M.XTS and key_bytes % 2:
        raise InvalidOption("XTS cipher key length should be a multiple of 2")
    if found is None:
        # A C int: QEMU prints it with %d.
        shown = one - (1 << 32) if one >> 31 else one
        raise InvalidOption(f"Algorithm '{name}' with key size {shown} bytes not supported")
    return found


def _check_essiv(
    family: str, cipher: QCryptoCipherAlgo, ivgen_hash: QCryptoHashAlgo | None
) -> None:
    """The vectors' key is a digest, whose length must be one that the cipher takes."""
    if ivgen_hash is None:
        raise InvalidOption("Missing IV generator hash specification")
    digest = DIGEST_BYTES[ivgen_hash]
    if digest in _CIPHERS[family]:
        return
    if family not in _SPELLED:
        raise InvalidOption(f"Cipher {cipher.value} not supported with essiv")
    raise InvalidOption(f"No {_SPELLED[family]} cipher with key size {digest} available")
