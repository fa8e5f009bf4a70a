# SPDX-License-Identifier: Apache-2.0
"""Commands about the program itself."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import anyio

from blockyard_tools.io.failure import Failed
from blockyard_tools.io.words import integer, number

if TYPE_CHECKING:
    from blockyard_tools.io.session import Session

__all__ = ["abort", "quit_", "sigraise", "sleep"]

_LARGEST = (1 << 31) - 1


async def abort(session: Session, arguments: list[str]) -> bool:
    """End as after a crash: nothing is written back."""
    os.abort()


async def quit_(session: Session, arguments: list[str]) -> bool:
    """Carry out no more commands."""
    session.finished = True
    return True


async def sigraise(session: Session, arguments: list[str]) -> bool:
    """Send the process a signal, as if nothing here handled it."""
    value = number(arguments[0])
    if value >= signal.NSIG:
        raise Failed(f"signal argument '{arguments[0]}' is too large to be a valid signal")
    session.output.flush()
    handled = value == signal.SIGINT and signal.getsignal(value) is not signal.SIG_IGN
    if handled or value == signal.SIGPIPE:
        # Those two the interpreter has a word in.
        signal.signal(value, signal.SIG_DFL)
    os.kill(os.getpid(), value)
    return True


async def sleep(session: Session, arguments: list[str]) -> bool:
    """Wait for so many milliseconds, while requests in the background go on."""
    value = integer(arguments[0])
    if value is None or not 0 <= value <= _LARGEST:
        raise Failed(f"{arguments[0]} is not a valid number")
    await anyio.sleep(value / 1000)
    return True
