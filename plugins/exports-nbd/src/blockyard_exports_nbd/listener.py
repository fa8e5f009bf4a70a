# SPDX-License-Identifier: Apache-2.0
"""Listening sockets from QMP's socket addresses, with QEMU's errors."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from blockyard.errors import InvalidOption, from_os_error
from blockyard.schema.sockets import (
    FdSocketAddress,
    InetSocketAddress,
    UnixSocketAddress,
    VsockSocketAddress,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Listener", "listen"]

_SUN_PATH = 108
_MAX_PORT = 65535


class Listener:
    """One listening socket; closing it removes its path from the file system."""

    def __init__(self, sock: socket.socket, path: str | None = None) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._path = path

    def close(self) -> None:
        """Stop listening."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self.socket.close()


async def listen(address: Any) -> list[Listener]:
    """Listen on a visited SocketAddress; one listener for each address of a host.

    :raises InvalidOption: if the address makes no sense.
    :raises ImageIOError: if the system refuses.
    """
    # A SocketAddressLegacy has its members one level deeper.
    where = getattr(address.u, "data", address.u)
    match where:
        case UnixSocketAddress():
            return [_listen_unix(where)]
        case InetSocketAddress():
            return await _listen_inet(where)
        case VsockSocketAddress():
            return [_listen_vsock(where)]
        case FdSocketAddress():
            return [_listen_fd(where.str)]
    raise InvalidOption(f"Unsupported socket address type '{address.type}'")


@contextlib.contextmanager
def _closing(sock: socket.socket) -> Iterator[socket.socket]:
    """Close the socket only if what is done with it fails."""
    try:
        yield sock
    except BaseException:
        sock.close()
        raise


def _start(sock: socket.socket, what: str = "Failed to listen on socket") -> None:
    try:
        sock.listen(socket.SOMAXCONN)
    except OSError as error:
        raise from_os_error(error, what) from error


# -- unix


def _listen_unix(where: UnixSocketAddress) -> Listener:
    path = where.path
    if not path and not where.abstract:
        import tempfile  # rarely needed, and slow to import

        path = os.path.join(tempfile.mkdtemp(), "qemu-socket")
    raw = os.fsencode(path)
    if len(raw) >= _SUN_PATH:
        raise InvalidOption(f"UNIX socket path '{path}' is too long")
    if 0 in raw and not where.abstract:
        raise InvalidOption(f"UNIX socket path '{path}' has a zero byte in it")
    if where.abstract:
        padding = 0 if where.tight is not False else _SUN_PATH - 1 - len(raw)
        return Listener(_bind_unix(b"\0" + raw + bytes(padding), path))
    try:
        # An image that was named by mistake stays.
        if stat.S_ISSOCK(os.lstat(raw).st_mode):
            os.unlink(raw)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise from_os_error(error, f"Failed to unlink socket {path}") from error
    return Listener(_bind_unix(raw, path), path)


def _bind_unix(raw: bytes, path: str) -> socket.socket:
    with _closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        try:
            sock.bind(raw)
        except OSError as error:
            raise from_os_error(error, f"Failed to bind socket to {path}") from error
        _start(sock)
        return sock


# -- inet


async def _listen_inet(where: InetSocketAddress) -> list[Listener]:
    if where.keep_alive:
        raise InvalidOption("keep-alive option is not supported for passive sockets")
    listeners: list[Listener] = []
    problem: OSError | None = None
    port: int | None = None
    for family, address in await _resolve(where):
        try:
            sock = _bind_range(family, address, where, port)
        except OSError as error:
            problem = problem or error
            continue
        # A port that the system chose is the same for all addresses.
        port = port or (sock.getsockname()[1] if address[1] == 0 else None)
        listeners.append(Listener(sock))
    if not listeners and problem:
        raise problem
    return listeners


def _family(where: InetSocketAddress) -> socket.AddressFamily:
    """QEMU's table of ipv4 and ipv6, each on, off or left out."""
    four, six = where.ipv4, where.ipv6
    if four is False and six is False:
        raise InvalidOption("Cannot disable IPv4 and IPv6 at same time")
    if four and not six:
        return socket.AF_INET
    if six and not four:
        return socket.AF_INET6
    if four is False:
        return socket.AF_INET6
    return socket.AF_INET if six is False else socket.AF_UNSPEC


async def _resolve(where: InetSocketAddress) -> list[tuple[int, Any]]:
    family, host, port = _family(where), where.host or None, where.port or None
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        found = socket.getaddrinfo(
            host, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE | numeric
        )
    except (socket.gaierror, ValueError) as error:
        if where.numeric:
            raise _unresolved(where, error) from error
        found = await _look_up(where, family)
    return list(dict.fromkeys((entry[0], entry[4]) for entry in found))


async def _look_up(where: InetSocketAddress, family: int) -> Any:
    """Ask the resolver, which may take its time."""

    def ask() -> Any:
        return socket.getaddrinfo(
            where.host or None, where.port or None, family, socket.SOCK_STREAM, 0,
            socket.AI_PASSIVE,
        )  # fmt: skip

    try:
        return await anyio.to_thread.run_sync(ask)
    except (socket.gaierror, ValueError) as error:
        raise _unresolved(where, error) from error


def _unresolved(where: InetSocketAddress, error: Exception) -> InvalidOption:
    # A ValueError is Python's, of a name that no resolver is asked for.
    reason = getattr(error, "strerror", "Name or service not known")
    return InvalidOption(f"address resolution failed for {where.host}:{where.port}: {reason}")


def _bind_range(
    family: int, address: Any, where: InetSocketAddress, chosen: int | None
) -> socket.socket:
    first = chosen or address[1]
    last = first if chosen or where.to is None else where.to
    problem: OSError = OSError(98, "Address already in use")
    for port in range(first, min(last, _MAX_PORT) + 1):
        with _closing(_inet_socket(family, where)) as sock:
            try:
                sock.bind((address[0], port, *address[2:]))
                sock.listen(socket.SOMAXCONN)
                return sock
            except OSError as error:
                sock.close()
                problem = error
                if error.errno != 98:
                    raise from_os_error(error, "Failed to bind socket") from error
    raise from_os_error(problem, "Failed to find an available port") from problem


def _inet_socket(family: int, where: InetSocketAddress) -> socket.socket:
    protocol = socket.IPPROTO_MPTCP if where.mptcp else 0
    try:
        sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    except OSError as error:
        raise from_os_error(error, "Failed to create a socket") from error
    with _closing(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 has a listener of its own, or was not wanted.
            only = where.ipv4 is False or bool(where.host) or where.ipv6 is not True
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        return sock


# -- the others


def _listen_vsock(where: VsockSocketAddress) -> Listener:
    numbers = []
    for name in ("cid", "port"):
        text = getattr(where, name)
        if not text.isdecimal() or int(text) >= 1 << 32:
            raise InvalidOption(f"Failed to parse {name} '{text}'")
        numbers.append(int(text))
    try:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError as error:
        raise from_os_error(error, "Failed to create socket") from error
    with _closing(sock):
        try:
            sock.bind((numbers[0], numbers[1]))
        except OSError as error:
            raise from_os_error(error, "Failed to bind socket") from error
        _start(sock)
        return Listener(sock)


def _listen_fd(text: str) -> Listener:
    """A socket that was open before; it is taken over once it listens."""
    if not text.isdecimal() or int(text) >= 1 << 31:
        raise InvalidOption(f"Unable to parse FD number {text}")
    number = int(text)
    try:
        is_socket = stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        is_socket = False
    if not is_socket:
        raise InvalidOption(f"File descriptor '{text}' is not a socket")
    sock = socket.socket(fileno=number)
    try:
        _start(sock, "Failed to listen on fd socket")
    except BaseException:
        sock.detach()  # it stays its owner's
        raise
    return Listener(sock)
