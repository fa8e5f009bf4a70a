# SPDX-License-Identifier: Apache-2.0
"""How far a program is, for people: qemu-img's line, or a bar on a terminal.

With ``-p`` standard output gets ``    (12.34/100%)`` and a carriage return, once for every
percent; where standard error is a terminal, that shows a bar instead.  Without ``-p``,
SIGUSR1 (or SIGINFO, where there is one) prints the line once, on standard error.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blockyard.copying import Progress

__all__ = ["Meter", "line_of", "shown"]

_INTERVAL = 0.1
_STEP = 1.0
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class Watched(Protocol):
    """Something that knows how far it is."""

    @property
    def progress(self) -> Progress:
        """Now."""


def line_of(percent: float) -> str:
    """QEMU's line: ``    (12.34/100%)``."""
    return f"    ({percent:3.2f}/100%)"


class Meter:
    """What shows the progress of one thing after the other."""

    def __init__(self, *, on: bool) -> None:
        self._on = on
        self._bar = on and sys.stderr.isatty()
        self._last = 0.0
        self._asked = False
        self._began = time.monotonic()
        if on:
            self._show(0.0, None)

    def ask(self) -> None:
        """Print once, next time."""
        self._asked = True

    def update(self, progress: Progress) -> None:
        """Take how far it is now, and show it if that is due."""
        percent = 100.0 * progress.fraction
        if self._on:
            if self._bar or percent - self._last > _STEP or (percent >= 100 > self._last):
                self._last = percent
                self._show(percent, progress)
        elif self._asked:
            self._asked = False
            print(line_of(percent), file=sys.stderr, flush=True)

    def finish(self) -> None:
        """All is done."""
        if self._on:
            self._show(100.0, None)

    def end(self) -> None:
        """It is over, done or not."""
        if self._on:
            print(file=sys.stderr if self._bar else sys.stdout, flush=True)

    def _show(self, percent: float, progress: Progress | None) -> None:
        if self._bar:
            print(f"\r{self._picture(percent, progress)}", end="", file=sys.stderr, flush=True)
        else:
            print(line_of(percent), end="\r", flush=True)

    def _picture(self, percent: float, progress: Progress | None) -> str:
        columns = shutil.get_terminal_size().columns
        text = f" {percent:6.2f} %"
        passed = time.monotonic() - self._began
        if progress is not None and passed > _INTERVAL and progress.done:
            left = passed * (progress.total - progress.done) / progress.done
            text += f"  {_amount(progress.done / passed)}/s  {_clock(left)} left"
        room = max(10, min(columns - 42, 60))
        full = int(room * percent / 100)
        bar = "█" * full + "░" * (room - full)
        return f"{bar}{text}".ljust(columns - 1)[: columns - 1]


def _amount(count: float) -> str:
    power = 0
    while count >= 1024 and power < len(_UNITS) - 1:
        count /= 1024
        power += 1
    return f"{count:.1f} {_UNITS[power]}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


@asynccontextmanager
async def shown(meter: Meter, watched: Watched) -> AsyncIterator[None]:
    """Show how far ``watched`` is, inside ``async with``."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_watch, meter, watched)
        tasks.start_soon(_listen, meter, watched)
        try:
            yield
            meter.update(watched.progress)
        except Exception as error:
            # Raised below, where no task group wraps it.
            failure = error
        finally:
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _watch(meter: Meter, watched: Watched) -> None:
    while True:
        await anyio.sleep(_INTERVAL)
        meter.update(watched.progress)


async def _listen(meter: Meter, watched: Watched) -> None:
    wanted = [signal.SIGUSR1]
    if hasattr(signal, "SIGINFO"):
        wanted.append(signal.SIGINFO)
    with anyio.open_signal_receiver(*wanted) as received:
        async for _ in received:
            meter.ask()
            meter.update(watched.progress)
