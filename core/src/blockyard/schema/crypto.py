# SPDX-License-Identifier: Apache-2.0
"""Encryption of disks: options and information of the formats ``luks`` and ``qcow2``."""

from __future__ import annotations

from typing import Any

from blockyard.schema.declare import QEnum, branches, enum, struct, union

__all__ = [
    "QCryptoBlockAmendOptions",
    "QCryptoBlockAmendOptionsLUKS",
    "QCryptoBlockCreateOptions",
    "QCryptoBlockCreateOptionsLUKS",
    "QCryptoBlockFormat",
    "QCryptoBlockInfoLUKS",
    "QCryptoBlockInfoLUKSSlot",
    "QCryptoBlockLUKSKeyslotState",
    "QCryptoBlockOptionsLUKS",
    "QCryptoBlockOptionsQCow",
    "QCryptoCipherAlgo",
    "QCryptoCipherMode",
    "QCryptoHashAlgo",
    "QCryptoIVGenAlgo",
]


@enum
class QCryptoHashAlgo(QEnum):
    """Hash functions."""

    MD5 = "md5"
    SHA1 = "sha1"
    SHA224 = "sha224"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"
    RIPEMD160 = "ripemd160"
    SM3 = "sm3"


@enum
class QCryptoCipherAlgo(QEnum):
    """Ciphers, with the bits of their keys where there are several."""

    AES_128 = "aes-128"
    AES_192 = "aes-192"
    AES_256 = "aes-256"
    DES = "des"
    TRIPLE_DES = "3des"
    CAST5_128 = "cast5-128"
    SERPENT_128 = "serpent-128"
    SERPENT_192 = "serpent-192"
    SERPENT_256 = "serpent-256"
    TWOFISH_128 = "twofish-128"
    TWOFISH_192 = "twofish-192"
    TWOFISH_256 = "twofish-256"
    SM4 = "sm4"


@enum
class QCryptoCipherMode(QEnum):
    """How a cipher is used on more than one of its blocks."""

    ECB = "ecb"
    CBC = "cbc"
    XTS = "xts"
    CTR = "ctr"


@enum
class QCryptoIVGenAlgo(QEnum):
    """How the initialization vector comes from the sector's number."""

    PLAIN = "plain"
    PLAIN64 = "plain64"
    ESSIV = "essiv"


@enum
class QCryptoBlockFormat(QEnum):
    """Formats of disk encryption; ``qcow`` is that of old qcow and qcow2 images."""

    QCOW = "qcow"
    LUKS = "luks"


@struct
class QCryptoBlockOptionsQCow:
    """The key of an old qcow or qcow2 image.

    key-secret: the id of the secret object.
    """

    key_secret: str | None = None


@struct
class QCryptoBlockOptionsLUKS:
    """The key of a LUKS volume.

    key-secret: the id of the secret object.
    """

    key_secret: str | None = None


@struct
class QCryptoBlockCreateOptionsLUKS(QCryptoBlockOptionsLUKS):
    """A LUKS volume to be made.

    cipher-alg: the cipher of the data (aes-256).
    cipher-mode: its mode (xts).
    ivgen-alg: where initialization vectors come from (plain64).
    ivgen-hash-alg: the hash that this uses (sha256).
    hash-alg: the hash of the master key (sha256).
    iter-time: milliseconds that checking a passphrase shall take (2000).
    """

    cipher_alg: QCryptoCipherAlgo | None = None
    cipher_mode: QCryptoCipherMode | None = None
    ivgen_alg: QCryptoIVGenAlgo | None = None
    ivgen_hash_alg: QCryptoHashAlgo | None = None
    hash_alg: QCryptoHashAlgo | None = None
    iter_time: int | None = None


@union("format")
class QCryptoBlockCreateOptions:
    """An encrypted image to be made.

    format: how it is encrypted.
    """

    format: QCryptoBlockFormat
    u: Any = branches(
        fixed={"qcow": QCryptoBlockOptionsQCow, "luks": QCryptoBlockCreateOptionsLUKS}
    )


@enum
class QCryptoBlockLUKSKeyslotState(QEnum):
    """What key slots become: ones that open the volume, or erased ones."""

    ACTIVE = "active"
    INACTIVE = "inactive"


@struct
class QCryptoBlockAmendOptionsLUKS:
    """Key slots to be set or erased.

    state: what they become.
    new-secret: the id of the secret that a new slot takes.
    old-secret: the id of the secret whose slots are erased.
    keyslot: the number of the slot; without it the first free one is set.
    iter-time: milliseconds that checking the new secret shall take (2000).
    secret: the id of the secret that opens the volume now (the one it was opened with).
    """

    state: QCryptoBlockLUKSKeyslotState
    new_secret: str | None = None
    old_secret: str | None = None
    keyslot: int | None = None
    iter_time: int | None = None
    secret: str | None = None


@union("format")
class QCryptoBlockAmendOptions:
    """Changes to an image's encryption.

    format: how it is encrypted.
    """

    format: QCryptoBlockFormat
    u: Any = branches(fixed={"qcow": None, "luks": QCryptoBlockAmendOptionsLUKS})


@struct
class QCryptoBlockInfoLUKSSlot:
    """A key slot.

    active: it opens the volume.
    iters: rounds of its key derivation.
    stripes: pieces that its key material is spread over.
    key-offset: where this is, in bytes.
    """

    active: bool
    iters: int | None = None
    stripes: int | None = None
    key_offset: int


@struct
class QCryptoBlockInfoLUKS:
    """A LUKS volume.

    cipher-alg: the cipher of the data.
    cipher-mode: its mode.
    ivgen-alg: where initialization vectors come from.
    ivgen-hash-alg: the hash that this uses.
    hash-alg: the hash of the master key.
    detached-header: the header is in a file of its own.
    payload-offset: where the data begins, in bytes.
    master-key-iters: rounds of the master key's digest.
    uuid: the volume's name.
    slots: the key slots.
    """

    cipher_alg: QCryptoCipherAlgo
    cipher_mode: QCryptoCipherMode
    ivgen_alg: QCryptoIVGenAlgo
    ivgen_hash_alg: QCryptoHashAlgo | None = None
    hash_alg: QCryptoHashAlgo
    detached_header: bool
    payload_offset: int
    master_key_iters: int
    uuid: str
    slots: list[QCryptoBlockInfoLUKSSlot]
