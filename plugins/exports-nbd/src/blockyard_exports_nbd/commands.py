# SPDX-License-Identifier: Apache-2.0
"""The QMP commands of the NBD server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.errors import InvalidOption
from blockyard.qmp.command import command
from blockyard.schema import visit
from blockyard.schema.export import BlockExportOptions, BlockExportRemoveMode
from blockyard_exports_nbd.schema import (
    NbdServerAddOptions,
    NbdServerOptions,
    NbdServerOptionsLegacy,
    NbdServerRemoveOptions,
)

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = [
    "nbd_server_add",
    "nbd_server_option",
    "nbd_server_remove",
    "nbd_server_start",
    "nbd_server_stop",
]

# The server is imported when it is started, not with the list of commands.


@command("nbd-server-start", args=NbdServerOptionsLegacy)
async def nbd_server_start(yard: Yard, args: NbdServerOptionsLegacy) -> None:
    """Start the NBD server.

    :raises BlockyardError: if it runs already, or cannot listen there.
    """
    from blockyard_exports_nbd.server import start_server

    await start_server(yard, args)


@command("nbd-server", args=NbdServerOptions)
async def nbd_server_option(yard: Yard, args: NbdServerOptions) -> None:
    """``--nbd-server`` of the daemon's command line.

    :raises BlockyardError: as nbd-server-start.
    """
    from blockyard_exports_nbd.server import start_server

    await start_server(yard, args)


@command("nbd-server-add", args=NbdServerAddOptions, features=("deprecated",))
async def nbd_server_add(yard: Yard, args: NbdServerAddOptions) -> None:
    """Export a node; its name is the export's id.

    :raises BlockyardError: as block-export-add.
    """
    node = yard.graph.lookup(args.device)
    name = args.device if args.name is None else args.name
    options: dict[str, Any] = {
        "type": "nbd",
        "id": name,
        "node-name": node.name,
        # Asked to be writable, a read-only node is exported as it is.
        "writable": bool(args.writable) and not node.read_only,
        "name": name,
    }
    if args.description is not None:
        options["description"] = args.description
    if args.bitmap is not None:
        options["bitmaps"] = [args.bitmap]
    await yard.exports.add(visit(BlockExportOptions, options))


@command("nbd-server-remove", args=NbdServerRemoveOptions, features=("deprecated",))
async def nbd_server_remove(yard: Yard, args: NbdServerRemoveOptions) -> None:
    """Remove an export.

    :raises BlockyardError: as block-export-del; if it is another type's.
    """
    export = yard.exports.find(args.name)
    if export is not None and export.options.type != "nbd":
        raise InvalidOption(f"Block export '{args.name}' is not an NBD export")
    await yard.exports.delete(args.name, hard=args.mode == BlockExportRemoveMode.HARD)


@command("nbd-server-stop")
async def nbd_server_stop(yard: Yard, args: None) -> None:
    """End the NBD server and all its exports.

    :raises NotFound: if it is not running.
    """
    from blockyard_exports_nbd.server import stop_server

    await stop_server(yard)
