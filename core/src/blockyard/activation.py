# SPDX-License-Identifier: Apache-2.0
"""Sockets passed by whoever started this process (sd_listen_fds(3)), and telling it we are ready.

A passed descriptor is named by its number or, where LISTEN_FDNAMES gives it one, by its name.
"""

import os
import socket

import attrs

from blockyard.errors import InvalidOption

__all__ = ["Passed", "listen_descriptors", "notify", "passed", "socket_of"]

_FIRST = 3


@attrs.frozen
class Passed:
    """A descriptor that was passed to this process."""

    fd: int
    #: As LISTEN_FDNAMES says; ``unknown`` when it says nothing.
    name: str


_passed: tuple[Passed, ...] = ()


def listen_descriptors() -> tuple[Passed, ...]:
    """Take what was passed; the variables are removed, so that children do not think it theirs.

    Call it before a fork: the variable names the process that was started.
    """
    global _passed
    count, names = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_FDNAMES", "")
    mine = os.environ.get("LISTEN_PID") == str(os.getpid())
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(variable, None)
    if mine and count.isascii() and count.isdigit():
        known = dict(enumerate(names.split(":") if names else []))
        fds = range(_FIRST, _FIRST + min(int(count), 1024))
        _passed = tuple(Passed(fd, known.get(fd - _FIRST, "unknown")) for fd in fds)
        for each in _passed:
            os.set_inheritable(each.fd, False)
    return _passed


def passed() -> tuple[Passed, ...]:
    """What :func:`listen_descriptors` found."""
    return _passed


def socket_of(text: str) -> socket.socket:
    """The socket that an address of type ``fd`` names; the caller's, a duplicate of it.

    :raises InvalidOption: if it names no descriptor, or one that is no socket.
    """
    number = next((each.fd for each in _passed if each.name == text), None)
    if number is None:
        if not (text.isascii() and text.isdigit()):
            raise InvalidOption(f"Unable to parse FD number {text}")
        number = int(text)
    try:
        return socket.socket(fileno=os.dup(number))
    except (OSError, OverflowError):
        raise InvalidOption(f"File descriptor '{text}' is not a socket") from None


def notify(state: str) -> None:
    """Tell the service manager, if there is one: ``READY=1`` (sd_notify(3)); never fails."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path or path[0] not in "/@":
        return
    address = "\0" + path[1:] if path[0] == "@" else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.setblocking(False)
            sock.sendto(state.encode(), address)
        except OSError:
            # A supervisor that is gone must not keep us from serving.
            pass
