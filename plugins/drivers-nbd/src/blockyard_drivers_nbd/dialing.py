# SPDX-License-Identifier: Apache-2.0
"""Making a connection: a socket, and the handshake on it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, TypeVar

import anyio
import attrs

from blockyard.errors import BlockyardError
from blockyard.sockets import CONNECT_SECONDS, connect
from blockyard_drivers_nbd.inquiry import inquire
from blockyard_drivers_nbd.negotiation import negotiate
from blockyard_drivers_nbd.stream import ServerStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blockyard.schema.sockets import SocketAddress
    from blockyard_drivers_nbd.information import Export
    from blockyard_drivers_nbd.inquiry import Listing

__all__ = ["Target", "dial", "dial_within", "list_exports"]

_T = TypeVar("_T")

#: Bytes that a server may send before transmission.
_HANDSHAKE_LIMIT = 16 << 20
#: Bytes asked for in unix sockets: one large command fits without a second wait.
_SOCKET_BUFFER = 4 << 20
_RETRY_SECONDS = 0.1
_RETRY_MOST = 2.0


@attrs.frozen
class Target:
    """What is connected to."""

    server: SocketAddress
    export: str
    #: The metadata context whose answers are block status; None: replies stay simple.
    context: str | None


async def dial(target: Target) -> tuple[socket.socket, Export]:
    """A connection on which transmission begins, and what it leads to.

    It gives up after twice :data:`~blockyard.sockets.CONNECT_SECONDS`.

    :raises BlockyardError: with QEMU's text; nothing is left open.
    """
    sock = await connect(target.server)
    try:
        export = await _conversed(sock, lambda s: negotiate(s, target.export, target.context))
    except BaseException:
        sock.close()
        raise
    return sock, export


async def list_exports(server: SocketAddress) -> Listing:
    """What a server has; in the time and for the bytes that :func:`dial` gives it.

    :raises BlockyardError: with QEMU's text.
    """
    with await connect(server) as sock:
        return await _conversed(sock, inquire)


async def _conversed(
    sock: socket.socket, conversation: Callable[[ServerStream], Awaitable[_T]]
) -> _T:
    _tune(sock)
    with anyio.move_on_after(CONNECT_SECONDS):
        return await conversation(ServerStream(sock, _HANDSHAKE_LIMIT))
    raise BlockyardError(
        "Failed to read option reply: the server has not answered for "
        f"{CONNECT_SECONDS:.0f} seconds"
    )


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
