# SPDX-License-Identifier: Apache-2.0
"""From a secret's id to what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.errors import InvalidOption, NotFound
from blockyard_objects_secret.secret import Secret

if TYPE_CHECKING:
    from blockyard.objects import Objects

__all__ = ["passphrase", "secret_bytes"]


def secret_bytes(objects: Objects, secret_id: str) -> bytes:
    """What the secret holds, decoded and decrypted.

    :raises NotFound: if there is no object of that id.
    :raises InvalidOption: if it is no secret.
    """
    found = objects.find(secret_id)
    if found is None:
        raise NotFound(f"No secret with id '{secret_id}'")
    if not isinstance(found, Secret):
        raise InvalidOption(f"Object with id '{secret_id}' is not a secret")
    return bytes(found.value)


def passphrase(objects: Objects, secret_id: str) -> bytes:
    """:func:`secret_bytes` where they are text, in UTF-8.

    :raises InvalidOption: if they are not.
    """
    value = secret_bytes(objects, secret_id)
    # GLib's g_utf8_validate takes no NUL, neither does QEMU.
    try:
        value.decode()
    except UnicodeDecodeError:
        raise InvalidOption(f"Data from secret {secret_id} is not valid UTF-8") from None
    if b"\0" in value:
        raise InvalidOption(f"Data from secret {secret_id} is not valid UTF-8")
    return value
