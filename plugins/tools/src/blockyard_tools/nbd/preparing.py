# SPDX-License-Identifier: Apache-2.0
"""What is checked before an image, a server or a device is touched, in qemu-nbd's order."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blockyard.activation import passed
from blockyard.errors import BlockyardError, InvalidOption
from blockyard_tools.nbd.addresses import check_passed

if TYPE_CHECKING:
    from blockyard.yard import Yard
    from blockyard_tools.nbd.options import Settings

__all__ = ["prepare", "prepare_objects"]

#: Bytes of the longest string in the NBD protocol.
_MAX_STRING = 4096


async def prepare_objects(yard: Yard, settings: Settings) -> None:
    """Make the objects, and :func:`prepare`.

    :raises BlockyardError: in qemu-nbd's words.
    """
    from blockyard_tools.objects import add_objects

    await add_objects(yard, settings.objects)
    _check_strings(settings)
    _check_tls(settings)
    if settings.tls_creds is not None:
        _find_credentials(yard, settings.tls_creds)
    _check_sockets(settings)


def prepare(settings: Settings) -> None:
    """Check what needs no objects.

    :raises BlockyardError: in qemu-nbd's words.
    """
    _check_strings(settings)
    _check_tls(settings)
    _check_sockets(settings)


def _check_strings(settings: Settings) -> None:
    """What the protocol has no room for."""
    for text, what in ((settings.export_name, "name"), (settings.description, "description")):
        if text is not None and len(os.fsencode(text)) > _MAX_STRING:
            raise InvalidOption(f"export {what} '{text}' too long")


def _check_tls(settings: Settings) -> None:
    if settings.tls_creds is None:
        for name in ("authz", "hostname"):
            if getattr(settings, f"tls_{name}") is not None:
                raise InvalidOption(f"--tls-{name} is not permitted without --tls-creds")
        return
    if settings.device is not None:
        raise InvalidOption("TLS is not supported with a host device")
    if settings.tls_authz is not None and settings.listing:
        raise InvalidOption("TLS authorization is incompatible with export list")
    if settings.tls_hostname is not None and not settings.listing:
        raise InvalidOption("TLS hostname is only supported with export list")


def _find_credentials(yard: Yard, name: str) -> None:
    if yard.objects.find(name) is None:
        raise BlockyardError(f"Failed to get TLS creds: No TLS credentials with id '{name}'")
    # No type of object has credentials yet.
    raise BlockyardError(f"Failed to get TLS creds: Object with id '{name}' is not TLS credentials")


def _check_sockets(settings: Settings) -> None:
    check_passed(settings, passed())
    if settings.selinux_label is None or settings.listing:
        return
    if settings.socket is None and settings.device is None and not passed():
        raise InvalidOption("--selinux-label is not permitted without --socket")
