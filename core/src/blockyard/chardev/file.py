# SPDX-License-Identifier: Apache-2.0
"""The chardev ``file``: output goes to a file, input may come from another."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blockyard.chardev.base import Chardev
from blockyard.chardev.kinds import FILE
from blockyard.chardev.streams import DescriptorStream
from blockyard.errors import from_os_error

if TYPE_CHECKING:
    from blockyard.schema.chardevkinds import ChardevFile

__all__ = ["FileChardev", "open_file"]


def open_file(path: str, flags: int) -> int:
    """Open without ever waiting, not even for a FIFO's other end.

    :raises ImageIOError: if it cannot be opened.
    """
    try:
        return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o666)
    except OSError as error:
        raise from_os_error(error, f"Could not open '{path}'") from error


class FileChardev(Chardev):
    """A file for output and, if asked for, one for input."""

    type = FILE
    options: ChardevFile

    async def open(self, *, wait: bool) -> None:
        """Open both; output is truncated unless it is to be appended to."""
        extra = os.O_APPEND if self.options.append else os.O_TRUNC
        self._reader: int | None = None
        self._used = False
        self._writer = open_file(self.options.out, os.O_WRONLY | os.O_CREAT | extra)
        if self.options.in_ is not None:
            try:
                self._reader = open_file(self.options.in_, os.O_RDONLY)
            except BaseException:
                os.close(self._writer)
                raise

    async def close(self) -> None:
        """Close both."""
        for fd in (self._reader, self._writer):
            if fd is not None:
                os.close(fd)

    async def accept(self) -> DescriptorStream:
        """The files are read and written once; after the end of the input nobody comes."""
        from anyio import sleep_forever

        if self._used:
            await sleep_forever()
        self._used = True
        return DescriptorStream(self._reader, self._writer, self.log)
