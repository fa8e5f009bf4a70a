# SPDX-License-Identifier: Apache-2.0
"""``-L``: what exports another server has."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from blockyard_tools.nbd.client import Client, ExportInfo, connect_inet, connect_unix
from blockyard_tools.nbd.options import DEFAULT_PORT
from blockyard_tools.nbd.wire import TRANSMISSION_FLAGS

if TYPE_CHECKING:
    from blockyard_tools.nbd.options import Settings

__all__ = ["list_exports"]


def list_exports(settings: Settings) -> None:
    """Print what the server says, once all of it is known.

    :raises BlockyardError: in QEMU's words.
    """
    if settings.socket is not None:
        sock = connect_unix(settings.socket)
    else:
        sock = connect_inet(settings.bind or "0.0.0.0", settings.port or DEFAULT_PORT)  # noqa: S104
    with closing(sock):
        client = Client(sock)
        found = _ask(client)
    print(f"exports available: {len(found)}")
    for export in found:
        _show(client, export)


def _ask(client: Client) -> list[ExportInfo]:
    client.start()
    if client.only is not None:
        return [client.only]
    client.negotiate_replies()
    found = client.names()
    for export in found:
        if not client.info(export):
            break
    if client.structured:
        for export in found:
            client.contexts(export)
    client.goodbye()
    return found


def _show(client: Client, export: ExportInfo) -> None:
    print(f" export: '{export.name}'")
    if export.description:
        print(f"  description: {export.description}")
    if export.flags & 1:
        names = (n for bit, n in enumerate(TRANSMISSION_FLAGS, 1) if export.flags >> bit & 1)
        print(f"  size:  {export.size}")
        print(f"  flags: 0x{export.flags:x} ( {''.join(f'{name} ' for name in names)})")
    if export.blocks[0]:
        for what, size in zip(("min", "opt", "max"), export.blocks, strict=True):
            print(f"  {what} block: {size}")
    print(f"  transaction size: {'64' if client.extended else '32'}-bit")
    if export.contexts:
        print(f"  available meta contexts: {len(export.contexts)}")
        for context in export.contexts:
            print(f"   {context}")
