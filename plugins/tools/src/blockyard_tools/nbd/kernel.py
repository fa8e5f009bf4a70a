# SPDX-License-Identifier: Apache-2.0
"""The kernel's own NBD client: a block device /dev/nbdN over connections of ours (linux/nbd.h).

The kernel serves the device inside one call, which lasts as long as the connections do.  A
server that is killed takes that call with it, so that no device is left without a server.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from blockyard.errors import BlockyardError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from blockyard_drivers_nbd.information import Export

__all__ = ["Device", "disconnect"]

_SET_SOCK, _SET_BLKSIZE, _DO_IT, _CLEAR_SOCK, _CLEAR_QUE = 0xAB00, 0xAB01, 0xAB03, 0xAB04, 0xAB05
_SET_SIZE_BLOCKS, _DISCONNECT, _SET_FLAGS = 0xAB07, 0xAB08, 0xAB0A
#: The kernel's sectors, and the largest block that every kernel takes.
_SECTOR, _PAGE = 512, 4096
#: Seconds in which a device that has its connections becomes one, or stops being one.
_SECONDS = 10.0


class Device:
    """One attached device."""

    def __init__(self, path: str, on_end: Callable[[], None]) -> None:
        """``on_end`` runs once, in a thread of the device's, when it is no longer attached."""
        self.path = path
        self._on_end = on_end
        self._fd = -1
        self._thread: threading.Thread | None = None

    def attach(self, socket_path: str, export_name: str, connections: int) -> None:
        """Connect to the server and hand the connections to the kernel.

        Returns when the device can be used: its size is known, its partitions are read.
        ``connections`` is how many are made at most; one, if the export does not allow more.

        :raises BlockyardError: in QEMU's words; nothing is attached then.
        """
        with ExitStack() as stack:
            sock, export = _dial(socket_path, export_name)
            sockets = [stack.enter_context(sock)]
            while export.multi_conn and len(sockets) < connections:
                sockets.append(stack.enter_context(_dial(socket_path, export_name)[0]))
            try:
                self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                text = f"Failed to open {self.path}: {error.strerror}"
                raise BlockyardError(text) from error
            try:
                self._set_up(sockets, export)
            except BaseException:
                os.close(self._fd)
                raise
        self._thread = threading.Thread(target=self._serve, name="nbd-device", daemon=True)
        self._thread.start()
        self._wait_usable(export)

    def detach(self) -> None:
        """Let go of the device: what it was told to write has been answered then."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            return
        _call(self._fd, _DISCONNECT)
        thread.join(_SECONDS)

    def _set_up(self, sockets: list[socket.socket], export: Export) -> None:
        for index, sock in enumerate(sockets):
            try:
                fcntl.ioctl(self._fd, _SET_SOCK, sock.fileno())
            except OSError as error:
                if index:
                    _call(self._fd, _CLEAR_SOCK)
                raise BlockyardError("Failed to set NBD socket") from error
        block = min(max(export.minimum or 0, _SECTOR), _PAGE)
        for request, value, what in (
            (_SET_BLKSIZE, block, "Failed setting NBD block size"),
            (_SET_SIZE_BLOCKS, export.size // block, "Failed setting size (in blocks)"),
            (_SET_FLAGS, export.flags, "Failed setting flags"),
        ):
            try:
                fcntl.ioctl(self._fd, request, value)
            except OSError as error:
                _call(self._fd, _CLEAR_SOCK)
                raise BlockyardError(what) from error

    def _serve(self) -> None:
        """The call that is the device; the kernel goes over to errors when it ends."""
        try:
            _call(self._fd, _DO_IT)
            _call(self._fd, _CLEAR_QUE)
            _call(self._fd, _CLEAR_SOCK)
        finally:
            self._on_end()

    def _wait_usable(self, export: Export) -> None:
        """The device has its size as soon as the call is under way; opening it reads partitions."""
        end = time.monotonic() + _SECONDS
        wanted = export.size // _SECTOR
        while time.monotonic() < end and self._thread is not None and self._thread.is_alive():
            if _sectors(self.path) in (wanted, None):
                break
            time.sleep(0.01)
        try:
            os.close(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            # Whoever uses it will see what is wrong with it.
            pass


def disconnect(path: str) -> None:
    """Detach a device, whoever serves it; returns once the kernel has let go of it.

    :raises BlockyardError: if there is no such file; one that is no device is left alone.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise BlockyardError(f"Cannot open {path}: {error.strerror}") from error
    try:
        for request in (_CLEAR_QUE, _DISCONNECT, _CLEAR_SOCK):
            _call(fd, request)
    finally:
        os.close(fd)
    end = time.monotonic() + _SECONDS
    while os.path.exists(_in_sys(path, "pid")) and time.monotonic() < end:
        time.sleep(0.01)


def _dial(path: str, name: str) -> tuple[socket.socket, Export]:
    """A connection on which the kernel goes on.  It knows simple replies only."""
    import anyio

    from blockyard.schema import visit
    from blockyard.schema.sockets import SocketAddress
    from blockyard_drivers_nbd.dialing import Target, dial

    server = visit(SocketAddress, {"type": "unix", "path": path})
    sock, export = anyio.run(dial, Target(server, name, None))
    sock.setblocking(True)
    return sock, export


def _call(fd: int, request: int) -> None:
    """What the kernel says to it changes nothing any more."""
    try:
        fcntl.ioctl(fd, request)
    except OSError:
        pass


def _sectors(path: str) -> int | None:
    """The device's size; None where sysfs does not tell."""
    try:
        with open(_in_sys(path, "size"), encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _in_sys(path: str, attribute: str) -> str:
    return f"/sys/block/{os.path.basename(os.path.realpath(path))}/{attribute}"
