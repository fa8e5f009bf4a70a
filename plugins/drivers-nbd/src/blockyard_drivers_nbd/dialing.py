# SPDX-License-Identifier: Apache-2.0
"""Making a connection: a socket, and the handshake on it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import anyio
import attrs

from blockyard.errors import BlockyardError
from blockyard.sockets import CONNECT_SECONDS, connect
from blockyard_drivers_nbd.negotiation import HANDSHAKE_LIMIT, negotiate
from blockyard_drivers_nbd.stream import ServerStream

if TYPE_CHECKING:
    from blockyard.schema.sockets import SocketAddress
    from blockyard_drivers_nbd.information import Export

__all__ = ["Target", "dial", "dial_within"]

#: Bytes asked for in unix sockets: one large command fits without a second wait.
_SOCKET_BUFFER = 4 << 20
_RETRY_SECONDS = 0.1
_RETRY_MOST = 2.0


@attrs.frozen
class Target:
    """What is connected to."""

    server: SocketAddress
    export: str
    #: The metadata context whose answers are block status.
    context: str


async def dial(target: Target) -> tuple[socket.socket, Export]:
    """A connection on which transmission begins, and what it leads to.

    It gives up after twice :data:`~blockyard.sockets.CONNECT_SECONDS`.

    :raises BlockyardError: with QEMU's text; nothing is left open.
    """
    sock = await connect(target.server)
    try:
        _tune(sock)
        with anyio.move_on_after(CONNECT_SECONDS):
            stream = ServerStream(sock, HANDSHAKE_LIMIT)
            return sock, await negotiate(stream, target.export, target.context)
        raise BlockyardError(
            "Failed to read option reply: the server has not answered for "
            f"{CONNECT_SECONDS:.0f} seconds"
        )
    except BaseException:
        sock.close()
        raise


async def dial_within(target: Target, seconds: float) -> tuple[socket.socket, Export]:
    """:func:`dial`, again and again until it succeeds or ``seconds`` have passed.

    With 0 it is tried once.

    :raises BlockyardError: the last failure.
    """
    end = anyio.current_time() + seconds
    pause = _RETRY_SECONDS
    while True:
        try:
            return await dial(target)
        except BlockyardError:
            left = end - anyio.current_time()
            if left <= 0:
                raise
        await anyio.sleep(min(pause, left))
        pause = min(2 * pause, _RETRY_MOST)


def _tune(sock: socket.socket) -> None:
    if sock.family == socket.AF_UNIX:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
    elif sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
