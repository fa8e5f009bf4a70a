# SPDX-License-Identifier: Apache-2.0
"""``-L``: what exports another server has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard_tools.nbd.options import DEFAULT_PORT

if TYPE_CHECKING:
    from blockyard_drivers_nbd.inquiry import Listed
    from blockyard_tools.nbd.options import Settings

__all__ = ["list_exports"]

#: What qemu-nbd calls the transmission flags from bit 1 on; bit 0 only says that there are any.
_FLAGS = (
    "readonly", "flush", "fua", "rotational", "trim", "zeroes", "df", "multi", "resize", "cache",
    "fast-zero", "block-status-payload",
)  # fmt: skip


def list_exports(settings: Settings) -> None:
    """Print what the server says, once all of it is known.

    :raises BlockyardError: in QEMU's words.
    """
    import anyio

    from blockyard.schema import visit
    from blockyard.schema.sockets import SocketAddress
    from blockyard_drivers_nbd import dialing
    from blockyard_drivers_nbd.wire import Mode

    address = {"type": "unix", "path": settings.socket}
    if settings.socket is None:
        host, port = settings.bind or "0.0.0.0", settings.port or DEFAULT_PORT  # noqa: S104
        address = {"type": "inet", "host": host, "port": port}
    listing = anyio.run(dialing.list_exports, visit(SocketAddress, address))
    print(f"exports available: {len(listing.exports)}")
    for export in listing.exports:
        _show(export, "64" if listing.mode == Mode.EXTENDED else "32")


def _show(listed: Listed, bits: str) -> None:
    print(f" export: '{listed.name}'")
    if listed.description:
        print(f"  description: {listed.description}")
    export = listed.export
    if export is not None:
        names = (name for bit, name in enumerate(_FLAGS, 1) if export.flags >> bit & 1)
        print(f"  size:  {export.size}")
        print(f"  flags: 0x{export.flags:x} ( {''.join(f'{name} ' for name in names)})")
        if export.minimum is not None:
            print(f"  min block: {export.minimum}")
            print(f"  opt block: {export.preferred}")
            print(f"  max block: {export.maximum}")
    print(f"  transaction size: {bits}-bit")
    if listed.contexts:
        print(f"  available meta contexts: {len(listed.contexts)}")
        for context in listed.contexts:
            print(f"   {context}")
