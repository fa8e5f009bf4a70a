# SPDX-License-Identifier: Apache-2.0
"""QMP types of the NBD server and its exports; names and members are QEMU's."""

from __future__ import annotations

from blockyard.export import ExportType
from blockyard.schema import Uint32, struct
from blockyard.schema.export import BlockDirtyBitmapOrStr, BlockExportRemoveMode
from blockyard.schema.sockets import SocketAddress, SocketAddressLegacy

__all__ = [
    "NBD",
    "BlockExportOptionsNbd",
    "BlockExportOptionsNbdBase",
    "NbdServerAddOptions",
    "NbdServerOptions",
    "NbdServerOptionsBase",
    "NbdServerOptionsLegacy",
    "NbdServerRemoveOptions",
]


@struct
class NbdServerOptionsBase:
    """Limits of the server.

    handshake-max-seconds: seconds in which a client must have finished the negotiation;
        0 is no limit (10).
    tls-creds: id of an object with TLS credentials.
    tls-authz: id of an object that says which clients' names are let in.
    max-connections: clients at a time, 0 for any number (100).  1 also stops the server
        from telling clients that they may open several connections.
    """

    handshake_max_seconds: Uint32 | None = None
    tls_creds: str | None = None
    tls_authz: str | None = None
    max_connections: Uint32 | None = None


@struct
class NbdServerOptions(NbdServerOptionsBase):
    """The server's options on the command line.

    addr: where to listen.
    """

    addr: SocketAddress


@struct
class NbdServerOptionsLegacy(NbdServerOptionsBase):
    """The server's options in nbd-server-start.

    addr: where to listen.
    """

    addr: SocketAddressLegacy


@struct
class BlockExportOptionsNbdBase:
    """What an NBD export is called.

    name: the name clients ask for (the node's name).
    description: text for people, up to 4096 bytes.
    """

    name: str | None = None
    description: str | None = None


@struct
class BlockExportOptionsNbd(BlockExportOptionsNbdBase):
    """An NBD export.

    bitmaps: dirty bitmaps shown as metadata contexts ``qemu:dirty-bitmap:NAME``.
    allocation-depth: whether the context ``qemu:allocation-depth`` is shown (false).
    """

    bitmaps: list[BlockDirtyBitmapOrStr] | None = None
    allocation_depth: bool | None = None


@struct
class NbdServerAddOptions(BlockExportOptionsNbdBase):
    """An NBD export as nbd-server-add takes it.

    device: the node to be exported; also the name where that is left out.
    writable: whether clients may write (false).
    bitmap: one dirty bitmap to be shown.
    """

    device: str
    writable: bool | None = None
    bitmap: str | None = None


@struct
class NbdServerRemoveOptions:
    """Which export nbd-server-remove removes.

    name: the export's id.
    mode: what becomes of its clients (safe).
    """

    name: str
    mode: BlockExportRemoveMode | None = None


#: The export type ``nbd``.
NBD = ExportType(
    name="nbd",
    options=BlockExportOptionsNbd,
    implementation="blockyard_exports_nbd.export:NbdExport",
    supports_inactive=True,
    multithreaded=True,
    title="NBD",
)
