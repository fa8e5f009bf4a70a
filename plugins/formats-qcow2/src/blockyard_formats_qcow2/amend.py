# SPDX-License-Identifier: Apache-2.0
"""Changing an image in place: x-blockdev-amend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.errors import InvalidOption
from blockyard_formats_qcow2.encryption import inside, luks, secret
from blockyard_formats_qcow2.header import Crypt

if TYPE_CHECKING:
    from blockyard_formats_qcow2.work import Qcow2Work

__all__ = ["amend"]


async def amend(driver: Qcow2Work, options: Any, *, force: bool) -> None:
    """Change what BlockdevAmendOptionsQcow2 name; ``force`` allows to lose the data.

    :raises BlockyardError: with QEMU's text.
    """
    if options.encrypt is not None:
        await _amend_encryption(driver, options.encrypt, force=force)


async def _amend_encryption(driver: Qcow2Work, encrypt: Any, *, force: bool) -> None:
    image = driver.image
    if image.header.crypt_method == Crypt.NONE:
        raise InvalidOption("image is not encrypted, can't amend")
    if str(encrypt.format) != "luks":
        raise InvalidOption("Amend can't be used to change the qcow2 encryption format")
    if image.header.crypt_method != Crypt.LUKS:
        raise InvalidOption(
            "Only LUKS encryption options can be amended for qcow2 with blockdev-amend"
        )
    crypto = image.extensions.crypto
    assert crypto is not None
    start, length = crypto

    async def write(offset: int, data: bytes) -> None:
        if offset + len(data) > length:
            raise InvalidOption("Request for data outside of extension header")
        await image.write(start + offset, data)

    module = luks()
    objects = driver.node.graph.objects
    key_secret = driver.options.encrypt.u.key_secret
    await module.amend_luks(
        driver.cipher,
        encrypt.u,
        module.Storage(inside(image.read, start, length), write, image.flush),
        secret=lambda name: secret(objects, name),
        key_secret=key_secret,
        force=force,
    )
