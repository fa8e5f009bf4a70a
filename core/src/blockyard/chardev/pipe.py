# SPDX-License-Identifier: Apache-2.0
"""The chardev ``pipe``: named pipes ``PATH.in`` and ``PATH.out``, or one ``PATH``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blockyard.chardev.base import Chardev
from blockyard.chardev.file import open_file
from blockyard.chardev.kinds import PIPE
from blockyard.chardev.streams import DescriptorStream
from blockyard.errors import ImageIOError

if TYPE_CHECKING:
    from blockyard.schema.chardevkinds import ChardevHostdev

__all__ = ["PipeChardev"]


class PipeChardev(Chardev):
    """Both ends are held open, so clients may come and go."""

    type = PIPE
    options: ChardevHostdev

    async def open(self, *, wait: bool) -> None:
        """Open the pair, or the one pipe where there is no pair."""
        path = self.options.device
        try:
            self._reader = open_file(f"{path}.in", os.O_RDWR)
        except ImageIOError:
            self._reader = open_file(path, os.O_RDWR)
            self._writer = os.dup(self._reader)
            return
        try:
            self._writer = open_file(f"{path}.out", os.O_RDWR)
        except ImageIOError:
            os.close(self._reader)
            self._reader = open_file(path, os.O_RDWR)
            self._writer = os.dup(self._reader)

    async def close(self) -> None:
        """Close both."""
        os.close(self._reader)
        os.close(self._writer)

    async def accept(self) -> DescriptorStream:
        """The pipes are one client for as long as the chardev lives."""
        return DescriptorStream(self._reader, self._writer, self.log)
