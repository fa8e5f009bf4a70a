# SPDX-License-Identifier: Apache-2.0
"""Listening on, connecting to and naming QAPI socket addresses."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Any

import anyio

from blockyard.activation import socket_of
from blockyard.errors import BlockyardError, InvalidOption, from_errno, from_os_error
from blockyard.schema.sockets import (
    FdSocketAddress,
    InetSocketAddress,
    SocketAddress,
    SocketAddressType,
    UnixSocketAddress,
    VsockSocketAddress,
)

__all__ = [
    "CONNECT_SECONDS",
    "absolute",
    "connect",
    "describe",
    "listen",
    "local_address",
    "remove_path",
]

#: Longest time to wait for a peer's answer.
CONNECT_SECONDS = 10.0
_SUN_PATH = 108
_FULL_PAUSE = 0.05
_Resolved = tuple[int, int, int, str, Any]


async def listen(address: SocketAddress, *, backlog: int = 1) -> list[socket.socket]:
    """Listening sockets for an address, non-blocking: one for each family it resolves to.

    A stale socket file is replaced; another kind of file in its place is left alone.

    :raises BlockyardError: with QEMU's text.
    """
    details = address.u
    if isinstance(details, FdSocketAddress):
        return [_passed(details)]
    if isinstance(details, UnixSocketAddress):
        return [_listen_unix(details, backlog)]
    if isinstance(details, VsockSocketAddress):
        return [_listen_vsock(details, backlog)]
    return await _listen_inet(details, backlog)


async def connect(address: SocketAddress) -> socket.socket:
    """A connected non-blocking socket.

    It gives up after :data:`CONNECT_SECONDS`, because commands of others may wait for it.

    :raises BlockyardError: with QEMU's text.
    """
    with anyio.move_on_after(CONNECT_SECONDS):
        return await _connect_any(address)
    where = describe(address).partition(":")[2]
    raise from_errno(errno.ETIMEDOUT, f"Failed to connect to '{where}'")


async def _connect_any(address: SocketAddress) -> socket.socket:
    details = address.u
    if isinstance(details, FdSocketAddress):
        return _passed(details)
    if isinstance(details, UnixSocketAddress):
        what = f"Failed to connect to '{details.path}'"
        return await _connect(socket.AF_UNIX, _unix_path(details), what)
    if isinstance(details, VsockSocketAddress):
        cid, port = _vsock(details)
        return await _connect(socket.AF_VSOCK, (cid, port), f"Failed to connect to '{cid}:{port}'")
    return await _connect_inet(details)


def _passed(details: FdSocketAddress) -> socket.socket:
    sock = socket_of(details.str)
    sock.setblocking(False)
    return sock


def describe(address: SocketAddress) -> str:
    """The address as chardevs' file names spell it, ``tcp:127.0.0.1:4444``."""
    details = address.u
    if isinstance(details, InetSocketAddress):
        return f"tcp:{details.host}:{details.port}"
    if isinstance(details, UnixSocketAddress):
        flags = ",abstract=on" if details.abstract else ""
        if details.abstract and details.tight is not False:
            flags += ",tight=on"
        return f"unix:{details.path}{flags}"
    if isinstance(details, VsockSocketAddress):
        return f"vsock:{details.cid}:{details.port}"
    return f"fd:{details.str}"


def local_address(sock: socket.socket, asked: SocketAddress) -> SocketAddress:
    """Where a socket really is: its port if any was welcome, its path if it was passed."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        host, port = sock.getsockname()[:2]
        v6 = sock.family == socket.AF_INET6
        inet = InetSocketAddress(host=host, port=str(port), ipv4=not v6, ipv6=v6)
        return SocketAddress(type=SocketAddressType.INET, u=inet)
    if sock.family == socket.AF_UNIX and isinstance(asked.u, FdSocketAddress):
        name = sock.getsockname()
        if isinstance(name, bytes):
            found = UnixSocketAddress(path=name[1:].decode(errors="replace"), abstract=True)
        else:
            found = UnixSocketAddress(path=name)
        return SocketAddress(type=SocketAddressType.UNIX, u=found)
    return asked


def absolute(address: SocketAddress) -> SocketAddress:
    """The address with its path absolute: it holds when the process changes its folder."""
    if isinstance(address.u, UnixSocketAddress) and not address.u.abstract:
        made = UnixSocketAddress(path=os.path.abspath(address.u.path))
        return SocketAddress(type=SocketAddressType.UNIX, u=made)
    return address


def remove_path(address: SocketAddress) -> None:
    """Remove the file of a listening unix socket of ours."""
    if isinstance(address.u, UnixSocketAddress) and not address.u.abstract:
        try:
            os.unlink(address.u.path)
        except OSError:
            # Somebody else has removed it, or its folder.
            pass


# -- unix


def _unix_path(unix: UnixSocketAddress) -> str:
    path = unix.path
    if len(os.fsencode(path)) >= _SUN_PATH:
        raise InvalidOption(f"UNIX socket path '{path}' is too long")
    if "\0" in path and not unix.abstract:
        raise InvalidOption(f"UNIX socket path '{path}' has a zero byte in it")
    if unix.abstract:
        padded = path if unix.tight is not False else path.ljust(_SUN_PATH - 1, "\0")
        return "\0" + padded
    return path


def _listen_unix(unix: UnixSocketAddress, backlog: int) -> socket.socket:
    path = _unix_path(unix)
    if not unix.abstract:
        _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        _bind(sock, path, f"Failed to bind socket to {unix.path}")
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise from_os_error(error, f"Failed to unlink socket {path}") from error


# -- vsock


def _vsock(vsock: VsockSocketAddress) -> tuple[int, int]:
    for name, text in (("CID", vsock.cid), ("port", vsock.port)):
        if not (text.isascii() and text.isdigit() and int(text) < 1 << 32):
            raise InvalidOption(f"Failed to parse {name} '{text}'")
    return int(vsock.cid), int(vsock.port)


def _listen_vsock(vsock: VsockSocketAddress, backlog: int) -> socket.socket:
    cid, port = _vsock(vsock)
    sock = socket.socket(socket.AF_VSOCK)
    try:
        sock.setblocking(False)
        _bind(sock, (cid, port), "Failed to bind socket")
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


# -- inet


async def _resolve(inet: InetSocketAddress, *, passive: bool) -> list[_Resolved]:
    if inet.ipv4 is False and inet.ipv6 is False:
        raise InvalidOption("Cannot disable IPv4 and IPv6 at same time")
    family = _family(inet)
    flags = socket.AI_PASSIVE if passive else 0
    host, port = inet.host or None, inet.port or None
    if inet.numeric:
        flags |= socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        # Numbers need no thread, which start-up would pay for.
        quick = flags | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return _lookup(host, port, family, quick)
    except (OSError, ValueError):
        pass
    try:
        return await anyio.to_thread.run_sync(
            _lookup, host, port, family, flags, abandon_on_cancel=True
        )
    except (socket.gaierror, ValueError) as error:
        # A ValueError is Python's, of a name that no resolver is asked for.
        reason = getattr(error, "strerror", "Name or service not known")
        raise BlockyardError(
            f"address resolution failed for {inet.host}:{inet.port}: {reason}"
        ) from error


def _lookup(host: str | None, port: str | None, family: int, flags: int) -> list[Any]:
    return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags)


def _family(inet: InetSocketAddress) -> int:
    """Both families, or the one that is left or alone asked for."""
    if inet.ipv6 is False or (inet.ipv4 and not inet.ipv6):
        return socket.AF_INET
    if inet.ipv4 is False or (inet.ipv6 and not inet.ipv4):
        return socket.AF_INET6
    return socket.AF_UNSPEC


async def _listen_inet(inet: InetSocketAddress, backlog: int) -> list[socket.socket]:
    found = await _resolve(inet, passive=True)
    last = (found[0][4][1] if found else 0) + _extra_ports(inet)
    made: list[socket.socket] = []
    problem: BlockyardError | None = None
    for family, _, _, _, place in found:
        # With port 0 all families get the number that the first one got.
        port = made[0].getsockname()[1] if made else place[1]
        try:
            sock = _bind_port(family, place, range(port, max(port, last) + 1))
            sock.listen(backlog)
            made.append(sock)
        except BlockyardError as error:
            problem = problem or error
    if not made:
        raise problem or BlockyardError(f"address resolution failed for {inet.host}:{inet.port}")
    return made


def _extra_ports(inet: InetSocketAddress) -> int:
    """``to`` is the last port to try."""
    if inet.to is None or not inet.port.isdigit():
        return 0
    return max(0, min(inet.to, 65535) - int(inet.port) % 65536)


def _bind_port(family: int, place: Any, ports: range) -> socket.socket:
    problem: BlockyardError | None = None
    for port in ports:
        sock = socket.socket(family)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _bind(sock, (place[0], port, *place[2:]), "Failed to bind socket")
        except BlockyardError as error:
            sock.close()
            problem = error
        else:
            return sock
    raise problem or BlockyardError("Failed to find an available port")


async def _connect_inet(inet: InetSocketAddress) -> socket.socket:
    problem: BlockyardError | None = None
    what = f"Failed to connect to '{inet.host}:{inet.port}'"
    for family, _, _, _, place in await _resolve(inet, passive=False):
        try:
            sock = await _connect(family, place, what)
        except BlockyardError as error:
            problem = error
            continue
        _keep_alive(sock, inet)
        return sock
    raise problem or BlockyardError(what)


def _keep_alive(sock: socket.socket, inet: InetSocketAddress) -> None:
    if inet.keep_alive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPCNT, inet.keep_alive_count),
        (socket.TCP_KEEPIDLE, inet.keep_alive_idle),
        (socket.TCP_KEEPINTVL, inet.keep_alive_interval),
    ):
        if value:
            sock.setsockopt(socket.IPPROTO_TCP, option, min(value, (1 << 31) - 1))


# -- all


def _bind(sock: socket.socket, place: Any, what: str) -> None:
    try:
        sock.bind(place)
    except OSError as error:
        raise from_os_error(error, what) from error


async def _connect(family: int, place: Any, what: str) -> socket.socket:
    sock = socket.socket(family)
    sock.setblocking(False)
    try:
        await _connected(sock, place)
    except OSError as error:
        sock.close()
        raise from_os_error(error, what) from error
    except BaseException:
        sock.close()
        raise
    return sock


async def _connected(sock: socket.socket, place: Any) -> None:
    while True:
        try:
            sock.connect(place)
        except BlockingIOError as error:
            if error.errno == errno.EAGAIN:
                # A unix socket whose queue is full: there is nothing to wait on.
                await anyio.sleep(_FULL_PAUSE)
                continue
            await anyio.wait_writable(sock)
            if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(number, os.strerror(number)) from None
        return
