# SPDX-License-Identifier: Apache-2.0
"""Going into the background once the image is served; until then complaints are passed on."""

from __future__ import annotations

import os
import signal

__all__ = ["Background", "into_background"]

_STDERR = 2


class Background:
    """What a server tells its parent, if that waits for it."""

    def __init__(self, pipe: int | None = None, keep: int | None = None) -> None:
        """``pipe``: where the parent listens; ``keep``: a standard error to go back to."""
        self._pipe = pipe
        self._keep = keep

    def ready(self) -> None:
        """The image is served: the parent ends, the terminal is let go.

        Does nothing in a process that stayed in the foreground.
        """
        if self._pipe is None:
            return
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, _STDERR):
            os.dup2(self._keep if fd == _STDERR and self._keep is not None else null, fd)
        os.close(null)
        os.write(self._pipe, b"\0")
        os.close(self._pipe)
        self._pipe = None


def into_background(*, verbose: bool) -> Background:
    """Fork; returns in the child only.  Call it before anything starts a thread.

    The parent repeats what the child says to standard error, and ends when the child is
    ready or has ended: with 0 if it is ready and said nothing, else with 1.  ``verbose``
    leaves the child this standard error.
    """
    ready, on_ready = os.pipe()
    said, saying = os.pipe()
    if os.fork():
        os.close(on_ready)
        os.close(saying)
        _wait(said, ready)
    os.close(ready)
    os.close(said)
    os.setsid()
    for number in (signal.SIGTSTP, signal.SIGTTOU, signal.SIGTTIN):
        signal.signal(number, signal.SIG_IGN)
    keep = os.dup(_STDERR) if verbose else None
    os.dup2(saying, _STDERR)
    os.close(saying)
    return Background(on_ready, keep)


def _wait(said: int, ready: int) -> None:
    """The parent's part; does not return."""
    spoke = False
    while text := os.read(said, 1 << 16):
        spoke = True
        os.write(_STDERR, text)
    started = os.read(ready, 1) == b"\0"
    os._exit(0 if started and not spoke else 1)
