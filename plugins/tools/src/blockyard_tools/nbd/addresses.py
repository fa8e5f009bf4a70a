# SPDX-License-Identifier: Apache-2.0
"""Where the image is served: an address of the command line, or sockets that were passed."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from blockyard.errors import BlockyardError
from blockyard_tools.nbd.options import DEFAULT_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockyard.activation import Passed
    from blockyard_tools.nbd.options import Settings

__all__ = [
    "check_passed",
    "fd_address",
    "label_sockets",
    "listen_early",
    "main_address",
    "socket_path",
]

_DEVICE_SOCKET = "/var/lock/qemu-nbd-{name}"
_SOCKET_LABEL = "/proc/thread-self/attr/sockcreate"


def check_passed(settings: Settings, passed: tuple[Passed, ...]) -> None:
    """Sockets that were passed leave nothing to say about them.

    :raises BlockyardError: in qemu-nbd's words.
    """
    if not passed:
        return
    for each in passed:
        try:
            os.fstat(each.fd)
        except OSError as error:
            raise BlockyardError(
                f"Socket activation failed: invalid file descriptor fd = {each.fd}: "
                f"{error.strerror}"
            ) from error
    if settings.listing:
        raise BlockyardError("List mode is incompatible with socket activation")
    if settings.disconnect:
        return
    for given, what in (
        (settings.device, "NBD device"),
        (settings.socket, "Unix socket"),
        (settings.bind, "The interface"),
        (settings.port, "TCP port number"),
        (settings.selinux_label, "SELinux label"),
    ):
        if given is not None:
            raise BlockyardError(f"{what} can't be set when using socket activation")


def fd_address(fd: int) -> dict[str, Any]:
    """The address of a socket that is open.

    :raises BlockyardError: if it is no socket.
    """
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        raise BlockyardError(f"File descriptor '{fd}' is not a socket")
    return {"type": "fd", "str": str(fd)}


def socket_path(settings: Settings) -> str:
    """The unix socket; the device's own one, if none is named."""
    if settings.socket is not None:
        return settings.socket
    return _DEVICE_SOCKET.format(name=os.path.basename(settings.device or ""))


def main_address(settings: Settings) -> dict[str, Any]:
    """The address that the command line names."""
    if settings.socket is not None or settings.device is not None:
        return {"type": "unix", "path": socket_path(settings)}
    port = settings.port or DEFAULT_PORT
    return {"type": "inet", "host": settings.bind or "0.0.0.0", "port": port}  # noqa: S104


@contextlib.contextmanager
def listen_early(settings: Settings) -> Iterator[int | None]:
    """Listen on the unix socket before anything large is imported.

    Whoever started the program may connect at once, and then waits for its first words.
    The value is the listening descriptor, the body's from then on; None where the address
    needs more than that, or does not suit: who comes to it later says why.  The socket's
    path is gone at the end.
    """
    path = settings.socket
    if path is None or settings.objects or settings.tls_creds or settings.selinux_label:
        yield None
        return
    sock = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        sock.bind(path)
        sock.listen(socket.SOMAXCONN)
    except (OSError, ValueError):
        sock.close()
        yield None
        return
    try:
        yield sock.detach()
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


@contextlib.contextmanager
def label_sockets(label: str | None) -> Iterator[None]:
    """Sockets that are made in the body carry this SELinux label.

    :raises BlockyardError: if the system does not take it.
    """
    if label is None:
        yield
        return
    _label(label.encode(), f"Cannot set SELinux socket create context to {label}")
    try:
        yield
    finally:
        _label(b"", "Cannot clear SELinux socket create context")


def _label(label: bytes, what: str) -> None:
    try:
        fd = os.open(_SOCKET_LABEL, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, label + b"\0")
        finally:
            os.close(fd)
    except OSError as error:
        raise BlockyardError(f"{what}: {error.strerror}") from error
