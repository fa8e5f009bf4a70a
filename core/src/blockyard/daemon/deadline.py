# SPDX-License-Identifier: Apache-2.0
"""The end of a daemon that cannot end: a node below it hangs."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockyard.daemon.process import PidFile

__all__ = ["CLOSE_SECONDS", "deadline"]

#: How long closing may take: longer than a disk's cache needs, shorter than what service
#: managers wait before they kill.
CLOSE_SECONDS = 60.0


@contextlib.contextmanager
def deadline(pid_file: PidFile | None) -> Iterator[None]:
    """End the process with status 1 if the body takes longer than :data:`CLOSE_SECONDS`.

    A driver that never answers (a dead server's file, a fault in Python) would hold it for
    ever.  What clients were told is written is with the system or the driver by then.
    """

    def give_up() -> None:
        text = f"blockyard-daemon: a node hangs; ending without it after {CLOSE_SECONDS:g} s\n"
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()
        if pid_file is not None:
            pid_file.remove()
        os._exit(1)

    timer = threading.Timer(CLOSE_SECONDS, give_up)
    # A thread of the system's, so that it works while the control loop does not.
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
