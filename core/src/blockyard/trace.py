# SPDX-License-Identifier: Apache-2.0
"""Trace points of the Python half.

A trace point is a module's constant; while it is off, calling it costs one test::

    _COMMAND = point("qmp_command")
    _COMMAND("%s from %s", name, monitor)

What is switched on goes to the logger ``blockyard.trace`` as ``name text``.  The native
half has trace points of its own (``csrc/control.h``, "tracing").
"""

import logging
from fnmatch import fnmatchcase

__all__ = ["POINTS", "TracePoint", "names", "point", "switch"]

_log = logging.getLogger("blockyard.trace")

#: Core's trace points, which can be listed and switched before their modules are imported.
POINTS = (
    "daemon_option",
    "daemon_ready",
    "daemon_stopping",
    "qmp_command",
    "qmp_event",
    "qmp_reply",
    "qmp_session_begin",
    "qmp_session_end",
)


class TracePoint:
    """One named point."""

    __slots__ = ("name", "on")

    def __init__(self, name: str) -> None:
        self.name = name
        #: Whether it says anything.
        self.on = False

    def __call__(self, text: str, *args: object) -> None:
        """Say ``text % args``, if the point is on."""
        if self.on:
            _log.debug(f"%s {text}", self.name, *args)


_known: dict[str, TracePoint] = {name: TracePoint(name) for name in POINTS}
_patterns: list[tuple[str, bool]] = []


def point(name: str) -> TracePoint:
    """The trace point of that name; a new one is on if an earlier pattern said so."""
    found = _known.get(name)
    if found is None:
        found = _known[name] = TracePoint(name)
        for pattern, on in _patterns:
            if fnmatchcase(name, pattern):
                found.on = on
    return found


def switch(pattern: str, *, on: bool) -> int:
    """Switch the points whose names match a shell pattern; answers how many there were."""
    _patterns.append((pattern, on))
    found = [each for each in _known.values() if fnmatchcase(each.name, pattern)]
    for each in found:
        each.on = on
    return len(found)


def names() -> list[str]:
    """The points there are, sorted."""
    return sorted(_known)
