# SPDX-License-Identifier: Apache-2.0
"""Opening files: what may hang, and what is accepted.

Opening, locking and looking at a file wait for its file system, for ever when that
is a dead NFS server.  They run on threads of their own, so that such a file neither
stops the control loop nor uses up the threads that others need.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs

from blockyard.errors import BlockyardError, ImageIOError, InvalidOption, from_errno
from blockyard.fdset import FD_SETS, PREFIX
from blockyard_drivers_file.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockyard.node import Node

__all__ = ["Access", "Facts", "in_thread", "look", "open_checked", "open_descriptor"]

_T = TypeVar("_T")
_SECTOR = 512

#: Threads that may wait for file systems at the same time.
_THREADS = 32
_limiter: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar(
    "blockyard_drivers_file.limiter"
)


async def in_thread(function: Callable[..., _T], *args: object) -> _T:
    """Call ``function`` on a thread of the file drivers.  Waits for it even if cancelled."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)


@attrs.frozen(kw_only=True)
class Access:
    """How a descriptor is opened."""

    writable: bool
    #: Bypass the page cache.
    direct: bool

    @property
    def flags(self) -> int:
        """``open``'s flags."""
        return (os.O_RDWR if self.writable else os.O_RDONLY) | (os.O_DIRECT * self.direct)


@attrs.frozen(eq=False, repr=False, kw_only=True)
class Facts:
    """What a descriptor is."""

    #: ``enum by_file_type``
    type: int
    #: Bytes, or what was wrong as a negative errno: files of /proc may have no end.
    length: int
    allocated: int
    locked_read_only: bool

    def node_length(self) -> int:
        """The length that a node on it has: QEMU's count sectors, the last one filled up.

        :raises ImageIOError: if it has none.
        """
        if self.length < 0:
            raise from_errno(self.length, "Could not refresh total sector count")
        return (self.length + _SECTOR - 1) & -_SECTOR


def open_descriptor(filename: str, access: Access) -> int:
    """A descriptor for ``filename``.  A FIFO or a tray without a disc does not block it.

    :raises ImageIOError: with QEMU's text.
    """
    if filename.startswith(PREFIX):
        return FD_SETS.open(filename, access.flags)
    flags = access.flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(filename, flags)
    except OSError as error:
        raise _cannot_open(filename, flags, error.errno or errno.EIO) from None
    except ValueError:  # an embedded null byte
        raise from_errno(errno.ENOENT, f"Could not open '{filename}'") from None


def _cannot_open(filename: str, flags: int, number: int) -> ImageIOError:
    if number == errno.EINVAL and flags & os.O_DIRECT and _opens(filename, flags & ~os.O_DIRECT):
        return ImageIOError(
            f"Could not open '{filename}': filesystem does not support O_DIRECT", number
        )
    return from_errno(number, f"Could not open '{filename}'")


def _opens(filename: str, flags: int) -> bool:
    try:
        os.close(os.open(filename, flags))
    except OSError:
        return False
    return True


def look(fd: int) -> Facts:
    """What a descriptor is, and how long.

    :raises ImageIOError: if it cannot be found out.
    """
    facts = ffi.new("struct by_file_facts *")
    if (result := lib.by_file_look(fd, facts)) < 0:
        raise from_errno(result, "Could not stat file")
    return Facts(
        type=facts.type,
        length=facts.length,
        allocated=facts.allocated,
        locked_read_only=facts.locked_read_only,
    )


def open_checked(node: Node, filename: str, access: Access, aio: str | None) -> int:
    """Open what ``node`` serves and nothing else.

    :raises BlockyardError: if it is something else, or is not there, with QEMU's text.
    """
    fd = open_descriptor(filename, access)
    try:
        _check_writable(fd, access)
        if aio == "native" and not access.direct:
            raise InvalidOption(
                "aio=native was specified, but it requires cache.direct=on, "
                "which was not specified."
            )
        _check_type(fd, node.type.name, filename)
        # Only opening had to be kept from waiting: with O_NONBLOCK left on, the
        # ring would refuse reads instead of waiting for the disk.
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    except BaseException:
        FD_SETS.close(fd)
        raise
    return fd


def _check_writable(fd: int, access: Access) -> None:
    if access.writable and look(fd).locked_read_only:
        raise from_errno(errno.EACCES, "The device is not writable")


def _check_type(fd: int, driver: str, filename: str) -> None:
    kind = look(fd).type
    if driver == "file" and kind != lib.BY_FILE_TYPE_REGULAR:
        raise BlockyardError(f"'{driver}' driver requires '{filename}' to be a regular file")
    if driver != "file" and kind not in (lib.BY_FILE_TYPE_BLOCK, lib.BY_FILE_TYPE_CHAR):
        raise BlockyardError(
            f"'{driver}' driver requires '{filename}' to be either a character or block device"
        )
