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
    from blockyard.graph import Graph

__all__ = ["CLOSE_SECONDS", "deadline"]

#: How long closing may take: longer than a disk's cache needs, shorter than what service
#: managers wait before they kill.
CLOSE_SECONDS = 60.0


@contextlib.contextmanager
def deadline(
    graph: Graph, pid_file: PidFile | None, program: str = "blockyard-daemon"
) -> Iterator[None]:
    """End the process with status 1 if the body takes longer than :data:`CLOSE_SECONDS`.

    Standard error says which nodes of the graph hang, where that is known, behind the
    program's name.

    A driver that never answers (a dead server's file, a fault in Python) would hold it for
    ever.  What clients were told is written is with the system or the driver by then.
    """

    def give_up() -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{program}: {_who(graph)} after {CLOSE_SECONDS:g} s\n")
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


def _who(graph: Graph) -> str:
    """Those with requests that have not ended, or else the one whose driver does not close."""
    names = [f"'{node.name}'" for node in graph.carrier.busy()]
    if not names:
        names = [f"'{node.name}'" for node in list(graph.nodes.values()) if node.native is None]
    if len(names) > 1:
        return f"nodes {', '.join(names)} hang; ending without them"
    return f"{f'node {names[0]}' if names else 'a node'} hangs; ending without it"
