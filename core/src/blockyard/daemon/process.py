# SPDX-License-Identifier: Apache-2.0
"""Going into the background, and the pid file."""

from __future__ import annotations

import fcntl
import os
import signal
import stat

from blockyard.errors import BlockyardError, from_os_error

__all__ = ["Background", "PidFile", "daemonize"]


class Background:
    """The child's end of the promise that its parent waits for."""

    def __init__(self, pipe: int | None = None) -> None:
        self._pipe = pipe

    def ready(self) -> None:
        """Everything is set up: the parent exits with success, the terminal is let go.

        Does nothing in a process that stayed in the foreground.
        """
        if self._pipe is None:
            return
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        os.write(self._pipe, b"\0")
        os.close(self._pipe)
        self._pipe = None


def daemonize() -> Background:
    """Fork into the background; returns in the child only.

    The parent exits when the child says it is ready, or with status 1 when the child ends
    before.  Call it before anything starts a thread.
    """
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os._exit(0 if os.read(reader, 1) == b"\0" else 1)
    os.close(reader)
    os.setsid()
    # A process that leads no session never gets a terminal again.
    if os.fork():
        os._exit(0)
    os.umask(0o027)
    for number in (signal.SIGTSTP, signal.SIGTTOU, signal.SIGTTIN):
        signal.signal(number, signal.SIG_IGN)
    return Background(writer)


class PidFile:
    """A locked file with our process id, from :meth:`create` until :meth:`remove`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def create(self) -> None:
        """Write the file and lock it.

        :raises BlockyardError: if it cannot be made, or another process has it locked.
        """
        try:
            fd = self._open_locked()
            try:
                _write_number(fd)
            except BlockyardError:
                # What cannot be written (a device, a full disk) is not ours to remove.
                os.close(fd)
                raise
            self._fd = fd
            # The daemon may change its folder later.
            self._path = os.path.realpath(self._path)
        except BlockyardError as error:
            raise BlockyardError(f"cannot create PID file: {error}") from error

    def remove(self) -> None:
        """Remove the file, if it was made; our lock goes with it."""
        if self._fd < 0:
            return
        try:
            os.unlink(self._path)
        except OSError:
            # Somebody was faster, or the folder has gone.
            pass
        os.close(self._fd)
        self._fd = -1

    def _open_locked(self) -> int:
        """Open and lock; again if somebody replaced the file in between."""
        while True:
            fd = self._open()
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_ino == os.stat(self._path).st_ino:
                    return fd
            except FileNotFoundError:
                pass
            except OSError as error:
                os.close(fd)
                raise from_os_error(error, "Cannot lock pid file") from error
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(self._path, flags, stat.S_IRUSR | stat.S_IWUSR)
        except OSError as error:
            raise from_os_error(error, f"Could not create '{self._path}'") from error
        return fd


def _write_number(fd: int) -> None:
    """Our process id, instead of what the file holds."""
    try:
        os.ftruncate(fd, 0)
    except OSError as error:
        raise from_os_error(error, "Failed to truncate pid file") from error
    try:
        os.write(fd, f"{os.getpid()}\n".encode())
    except OSError as error:
        raise from_os_error(error, "Failed to write pid file") from error
