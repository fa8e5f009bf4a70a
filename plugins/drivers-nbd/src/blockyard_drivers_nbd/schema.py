# SPDX-License-Identifier: Apache-2.0
"""Options of the driver ``nbd``, and its declaration."""

from __future__ import annotations

from blockyard.node import DriverType
from blockyard.schema import Uint32, member, struct
from blockyard.schema.sockets import SocketAddress
from blockyard_drivers_nbd.names import adapt_options, parse_filename

__all__ = ["NBD", "BlockdevOptionsNbd"]


@struct
class BlockdevOptionsNbd:
    """A disk that an NBD server exports.

    server: where the server listens.
    export: the export's name; the server's default one unless given.
    tls-creds: id of an object with TLS credentials.
    tls-hostname: the name that the server's certificate must have, where it is not the
        host's.
    x-dirty-bitmap: a metadata context, ``qemu:dirty-bitmap:NAME`` or
        ``qemu:allocation-depth``, whose answers are shown as block status in place of
        ``base:allocation``'s.
    reconnect-delay: seconds that requests wait for a server that is gone; afterwards,
        and with 0, they fail until it is back (0).
    open-timeout: seconds in which connecting is tried again when opening; with 0 it is
        tried once (0).
    """

    server: SocketAddress
    export: str | None = None
    tls_creds: str | None = None
    tls_hostname: str | None = None
    x_dirty_bitmap: str | None = member(default=None, features=("unstable",))
    reconnect_delay: Uint32 | None = None
    open_timeout: Uint32 | None = None


NBD = DriverType(
    name="nbd",
    kind="protocol",
    options=BlockdevOptionsNbd,
    implementation="blockyard_drivers_nbd.driver:NbdDriver",
    prefixes=("nbd", "nbd+tcp", "nbd+unix"),
    parse_filename=parse_filename,
    adapt_options=adapt_options,
    creation="blockyard.creation:EXISTING",
)
