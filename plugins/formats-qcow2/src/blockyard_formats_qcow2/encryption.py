# SPDX-License-Identifier: Apache-2.0
"""Encrypted images: their key, and the cipher that blockyard-formats-luks makes of it.

That package, and blockyard-objects-secret for keys, are needed for encrypted images
only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from blockyard.errors import BlockyardError, InvalidOption, UnknownPlugin
from blockyard_formats_qcow2.header import Crypt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blockyard_formats_qcow2.reading import Found

__all__ = ["inside", "luks", "open_cipher", "secret"]


def luks() -> Any:
    """The module ``blockyard_formats_luks.crypto``.

    :raises UnknownPlugin: if it is not installed.
    """
    return _module("blockyard_formats_luks.crypto", "blockyard-formats-luks")


def secret(objects: Any, name: str | None) -> bytes:
    """The passphrase that the secret object ``name`` holds.

    :raises BlockyardError: with QEMU's text.
    """
    if name is None:
        raise InvalidOption("Parameter 'encrypt.key-secret' is required for cipher")
    lookup = _module("blockyard_objects_secret.lookup", "blockyard-objects-secret")
    return bytes(lookup.passphrase(objects, name))


def _module(name: str, package: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UnknownPlugin(f"Encrypted images need the package {package}: {error}") from error


def inside(
    read: Callable[[int, int], Awaitable[bytes]], start: int, length: int
) -> Callable[[int, int], Awaitable[bytes]]:
    """``read`` of the ``length`` bytes from ``start`` on, where a LUKS header is.

    What asks for more is refused with QEMU's text.
    """

    async def part(offset: int, count: int) -> bytes:
        if offset + count > length:
            raise BlockyardError("Request for data outside of extension header")
        return await read(start + offset, count)

    return part


async def open_cipher(
    found: Found, encrypt: Any, objects: Any, read: Callable[[int, int], Awaitable[bytes]]
) -> Any:
    """The cipher of an encrypted image, with ``address`` and ``close()``; None for others.

    ``encrypt`` is the option, ``read(offset, length)`` reads the image's file.  Of a LUKS
    image it is a ``Volume``, which has ``info`` besides; without ``objects`` it has no key.

    :raises BlockyardError: with QEMU's text.
    """
    method = found.header.crypt_method
    name = None if encrypt is None else encrypt.u.key_secret
    if method == Crypt.LUKS:
        if found.extensions.crypto is None:
            raise InvalidOption(f"Missing CRYPTO header for crypt method {method}")
        part = inside(read, *found.extensions.crypto)
        word = secret(objects, name) if objects is not None else None
        return await luks().open_luks(part, word)
    if method == Crypt.AES and objects is not None:
        return luks().legacy_aes(secret(objects, name))
    return None
