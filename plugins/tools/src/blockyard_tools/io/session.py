# SPDX-License-Identifier: Apache-2.0
"""What the program is doing: the image that is open, and the commands that come in."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from blockyard.errors import BlockyardError
from blockyard_tools.io.failure import Failed, Misused
from blockyard_tools.io.output import Output, complain
from blockyard_tools.io.table import Command, find
from blockyard_tools.io.words import split

if TYPE_CHECKING:
    from blockyard.image import Image
    from blockyard.yard import Yard
    from blockyard_tools.io.background import Background

__all__ = ["PROGRAM", "Session"]

PROGRAM = "qemu-io"


class Session:
    """One run of the program; commands find here what they work with."""

    def __init__(self, yard: Yard, *, misaligned: bool = False) -> None:
        """``misaligned``: requests' memory begins a few bytes off a page."""
        self.yard = yard
        self.output = Output()
        self.misaligned = misaligned
        #: Set by ``quit``: no command runs any more.
        self.finished = False
        #: Whether a command has failed.
        self.failed = False
        #: The image that commands are about; None: none is open.
        self.current: Image | None = None
        #: Whether writes of the image are on stable storage when they complete.
        self.writethrough = False
        self._background: Background | None = None

    @property
    def image(self) -> Image:
        """The image that is open; for commands that need one."""
        assert self.current is not None
        return self.current

    @property
    def background(self) -> Background:
        """The requests that run beside the commands."""
        if self._background is None:
            from blockyard_tools.io.background import Background

            self._background = Background(self.output)
        return self._background

    async def run(self, line: str) -> None:
        """Carry out a line, and note it if that fails."""
        words = split(line)
        if not words or self.finished:
            return
        command = find(words[0])
        if command is None:
            complain(f'command "{words[0]}" not found')
            self.failed = True
            return
        try:
            done = await self._run(command, words)
        except BlockyardError as error:
            complain(f"{PROGRAM}: {error}")
            done = False
        self.failed |= not done

    async def _run(self, command: Command, words: list[str]) -> bool:
        if command.needs_image and self.current is None:
            complain("no file open, try 'help open'")
            return False
        error = command.count_error(words[0], len(words) - 1)
        if error is not None:
            complain(error)
            return False
        if command.changes:
            await self._ask_permission(command)
        function = getattr(importlib.import_module(command.module), command.function)
        try:
            done: bool = await function(self, words[1:])
        except Misused as misuse:
            if str(misuse):
                complain(f"{words[0]}: {misuse}")
            self.output.line(command.usage)
            return False
        except Failed as failure:
            if str(failure):
                self.output.line(str(failure))
            return False
        return done

    async def _ask_permission(self, command: Command) -> None:
        """Ask for what the command changes, if that has not been granted already."""
        from blockyard.permission import Perm

        root = self.image.root
        wanted = Perm.WRITE | Perm.RESIZE if command.changes == "resize" else Perm.WRITE
        if wanted & ~root.perm:
            await self.yard.graph.set_root_permissions(root, root.perm | wanted, root.shared)

    async def settle(self) -> None:
        """Wait for what runs in the background."""
        if self._background is not None:
            await self._background.idle()

    async def leave(self) -> None:
        """Close the image, if one is open."""
        await self.settle()
        if self.current is not None:
            image, self.current = self.current, None
            await image.close()
