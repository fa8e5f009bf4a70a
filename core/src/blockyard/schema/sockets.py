# SPDX-License-Identifier: Apache-2.0
"""Socket addresses."""

from __future__ import annotations

from blockyard.schema.declare import QEnum, Uint16, Uint32, branches, enum, struct, union

__all__ = [
    "FdSocketAddress",
    "FdSocketAddressWrapper",
    "InetSocketAddress",
    "InetSocketAddressBase",
    "InetSocketAddressWrapper",
    "SocketAddress",
    "SocketAddressLegacy",
    "SocketAddressType",
    "UnixSocketAddress",
    "UnixSocketAddressWrapper",
    "VsockSocketAddress",
    "VsockSocketAddressWrapper",
]


@enum
class SocketAddressType(QEnum):
    """Kinds of socket address."""

    INET = "inet"
    UNIX = "unix"
    VSOCK = "vsock"
    FD = "fd"


@struct
class InetSocketAddressBase:
    """A TCP or UDP end point.

    host: name or address.
    port: number or service name.
    """

    host: str
    port: str


@struct
class InetSocketAddress(InetSocketAddressBase):
    """A TCP or UDP address to listen on or connect to.

    numeric: host and port are numbers; nothing is looked up.
    to: the last port to try when listening.
    ipv4: accept IPv4 addresses.
    ipv6: accept IPv6 addresses.
    keep-alive: send keep-alive probes when connecting.
    keep-alive-count: lost probes before the connection counts as dead.
    keep-alive-idle: idle seconds before the first probe.
    keep-alive-interval: seconds between probes.
    mptcp: use multipath TCP.
    """

    numeric: bool | None = None
    to: Uint16 | None = None
    ipv4: bool | None = None
    ipv6: bool | None = None
    keep_alive: bool | None = None
    keep_alive_count: Uint32 | None = None
    keep_alive_idle: Uint32 | None = None
    keep_alive_interval: Uint32 | None = None
    mptcp: bool | None = None


@struct
class UnixSocketAddress:
    """A socket in the file system, or in Linux's abstract name space.

    path: the socket's path or name.
    abstract: the name is an abstract one (false).
    tight: an abstract name ends where its text ends (true).
    """

    path: str
    abstract: bool | None = None
    tight: bool | None = None


@struct
class VsockSocketAddress:
    """A socket between host and guest.

    cid: the context identifier.
    port: the port number.
    """

    cid: str
    port: str


@struct
class FdSocketAddress:
    """A file descriptor that was passed.

    str: its number, or the name that getfd gave it.
    """

    str: str  # noqa: A003  QAPI's name


@union("type")
class SocketAddress:
    """A socket address."""

    type: SocketAddressType
    u: InetSocketAddress | UnixSocketAddress | VsockSocketAddress | FdSocketAddress = branches(
        fixed={
            "inet": InetSocketAddress,
            "unix": UnixSocketAddress,
            "vsock": VsockSocketAddress,
            "fd": FdSocketAddress,
        }
    )


@struct
class InetSocketAddressWrapper:
    """The ``data`` of an inet address in the older form."""

    data: InetSocketAddress


@struct
class UnixSocketAddressWrapper:
    """The ``data`` of a unix address in the older form."""

    data: UnixSocketAddress


@struct
class VsockSocketAddressWrapper:
    """The ``data`` of a vsock address in the older form."""

    data: VsockSocketAddress


@struct
class FdSocketAddressWrapper:
    """The ``data`` of a passed descriptor in the older form."""

    data: FdSocketAddress


@union("type")
class SocketAddressLegacy:
    """A socket address in the older form, with the details in ``data``."""

    type: SocketAddressType
    u: (
        InetSocketAddressWrapper
        | UnixSocketAddressWrapper
        | VsockSocketAddressWrapper
        | FdSocketAddressWrapper
    ) = branches(
        fixed={
            "inet": InetSocketAddressWrapper,
            "unix": UnixSocketAddressWrapper,
            "vsock": VsockSocketAddressWrapper,
            "fd": FdSocketAddressWrapper,
        }
    )

    @property
    def flat(self) -> SocketAddress:
        """The same address in the newer form."""
        return SocketAddress(type=self.type, u=self.u.data)
