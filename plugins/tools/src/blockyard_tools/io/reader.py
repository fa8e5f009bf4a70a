# SPDX-License-Identifier: Apache-2.0
"""Commands that somebody types, or that come through standard input."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blockyard_tools.io.output import Output

__all__ = ["typed"]

_PROMPT = "qemu-io> "
_BLOCK = 65536
#: Bytes of the longest line that is one command.
_LONGEST = 1 << 20


async def typed(output: Output) -> AsyncIterator[str]:
    """The lines, until there are no more, with a prompt before each."""
    if sys.stdin is not None and sys.stdin.isatty():
        async for line in _edited(output):
            yield line
        return
    waiting = bytearray()
    ended = sys.stdin is None
    while True:
        output.write(_PROMPT)
        output.flush()
        while b"\n" not in waiting and not ended and len(waiting) < _LONGEST:
            block = await _block()
            ended = not block
            waiting += block
        if not waiting:
            return
        command, _, rest = bytes(waiting).partition(b"\n")
        waiting = bytearray(rest)
        yield command.decode(errors="surrogateescape")


async def _block() -> bytes:
    # What is no file may have nothing to read yet; requests go on meanwhile.
    if not stat.S_ISREG(os.fstat(0).st_mode):
        try:
            await anyio.wait_readable(0)
        except PermissionError:
            pass  # It never makes anyone wait, as /dev/null.
    return os.read(0, _BLOCK)


async def _edited(output: Output) -> AsyncIterator[str]:
    """Lines from a terminal, with editing and history, and completion of commands' names."""
    import readline

    from blockyard_tools.io.table import COMMANDS

    def complete(text: str, state: int) -> str | None:
        found = [c.name for c in COMMANDS if c.name.startswith(text)]
        return found[state] + " " if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    while True:
        output.flush()
        try:
            yield await anyio.to_thread.run_sync(input, _PROMPT, abandon_on_cancel=True)
        except EOFError:
            return
