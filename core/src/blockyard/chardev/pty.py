# SPDX-License-Identifier: Apache-2.0
"""The chardev ``pty``: a pseudo-terminal that a terminal program opens."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import anyio

from blockyard.chardev.base import Chardev
from blockyard.chardev.kinds import PTY
from blockyard.chardev.streams import DescriptorStream
from blockyard.errors import from_os_error

if TYPE_CHECKING:
    from blockyard.schema.chardevkinds import ChardevPty

__all__ = ["PtyChardev"]

#: Seconds between looks whether somebody has opened the terminal: nothing tells us.
_PAUSE = 0.1


class PtyChardev(Chardev):
    """A client is whoever has the terminal open."""

    type = PTY
    options: ChardevPty

    async def open(self, *, wait: bool) -> None:
        """Make the terminal, and the symbolic link that was asked for."""
        import tty

        try:
            self._master, slave = os.openpty()
        except OSError as error:
            raise from_os_error(error, "Failed to create PTY") from error
        self._path = os.ttyname(slave)
        tty.setraw(slave)
        os.close(slave)
        os.set_blocking(self._master, False)
        self._link = self.options.path
        if self._link is not None:
            self._make_link(self._link)

    async def close(self) -> None:
        """Close the terminal and remove the link."""
        os.close(self._master)
        if self._link is not None:
            try:
                os.unlink(self._link)
            except OSError:
                # It is somebody else's by now.
                pass

    async def accept(self) -> _PtyStream:
        """Wait until somebody opens the terminal."""
        while self._hung_up():
            await anyio.sleep(_PAUSE)
        return _PtyStream(self._master, self._master, self.log)

    @property
    def filename(self) -> str:
        """``pty:`` and the path."""
        return f"pty:{self._path}"

    @property
    def pty(self) -> str:
        """The path of the terminal."""
        return self._path

    def _hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self._master, 0)
        return any(mask & select.POLLHUP for _, mask in poll.poll(0))

    def _make_link(self, link: str) -> None:
        try:
            os.symlink(self._path, link)
        except OSError as error:
            os.close(self._master)
            raise from_os_error(error, "Failed to create PTY symlink") from error


class _PtyStream(DescriptorStream):
    """The master's end; reading fails with EIO when the terminal was closed."""

    async def receive(self) -> tuple[bytes, list[int]]:
        """Some bytes; the end when nobody has the terminal open any more."""
        try:
            return await super().receive()
        except OSError:
            return b"", []
