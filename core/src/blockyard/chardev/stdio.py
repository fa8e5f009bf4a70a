# SPDX-License-Identifier: Apache-2.0
"""The chardev ``stdio``: the daemon's own standard input and output."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import anyio

from blockyard.chardev.base import Chardev
from blockyard.chardev.kinds import STDIO
from blockyard.chardev.streams import DescriptorStream
from blockyard.errors import InvalidOption

if TYPE_CHECKING:
    from blockyard.schema.chardevkinds import ChardevStdio

__all__ = ["StdioChardev", "forbid"]

_forbidden = False


def forbid() -> None:
    """From now on there is no standard input and output: the process is a daemon."""
    global _forbidden
    _forbidden = True


class StdioChardev(Chardev):
    """Standard input and output; a terminal is made raw for as long as it is in use."""

    type = STDIO
    options: ChardevStdio
    _users = 0

    async def open(self, *, wait: bool) -> None:
        """Take both over; how they were is restored at the end."""
        if _forbidden:
            raise InvalidOption("cannot use stdio with -daemonize")
        if StdioChardev._users:
            raise InvalidOption("cannot use stdio by multiple character devices")
        StdioChardev._users += 1
        self._used = False
        sys.stdout.flush()
        self._blocking = {fd: os.get_blocking(fd) for fd in (0, 1)}
        self._terminal = self._make_raw() if os.isatty(0) else None
        for fd in self._blocking:
            os.set_blocking(fd, False)

    async def close(self) -> None:
        """Give them back."""
        import termios

        StdioChardev._users -= 1
        for fd, blocking in self._blocking.items():
            os.set_blocking(fd, blocking)
        if self._terminal is not None:
            termios.tcsetattr(0, termios.TCSANOW, self._terminal)

    async def accept(self) -> DescriptorStream:
        """There is one client; after the end of the input nobody comes."""
        if self._used:
            await anyio.sleep_forever()
        self._used = True
        return DescriptorStream(0, 1, self.log)

    def _make_raw(self) -> list[Any]:
        """No line editing; Ctrl-C stays a signal unless ``signal=off``."""
        import termios

        before = termios.tcgetattr(0)
        mode: list[Any] = termios.tcgetattr(0)
        mode[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
        if self.options.signal is False:
            mode[3] &= ~termios.ISIG
        termios.tcsetattr(0, termios.TCSANOW, mode)
        return before
