# SPDX-License-Identifier: Apache-2.0
"""``--trace``: which trace points say something, and where it goes."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from blockyard import trace
from blockyard.errors import BlockyardError, InvalidOption, from_os_error

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["EventsFileError", "Tracing"]

_BATCH = 64 << 10


class EventsFileError(BlockyardError):
    """Raised when the file that lists events cannot be read; the text begins with its path."""


class Tracing:
    """The trace points that are on, Python's and the native ones."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._handler: logging.Handler | None = None
        self._tag = 0

    def option(self, text: str) -> bool:
        """Apply one ``--trace``; False if it asked for the list, which was printed.

        :raises BlockyardError: if it is malformed, or a file cannot be opened.
        """
        values = _parse(text)
        pattern = values.get("enable")
        if pattern in ("help", "?"):
            print("\n".join(_names()))
            return False
        if pattern is not None:
            self._switch(pattern, text)
        if "events" in values:
            for line in _lines(values["events"]):
                self._switch(line, text)
        self._open(values.get("file"))
        return True

    def attach(self, yard: Yard) -> None:
        """Take the native half's lines from now on."""
        control = yard.control
        if self._handler is None:
            return
        buffer = control.ffi.new("char[]", _BATCH)

        def take(_: Any) -> None:
            while count := control.lib.by_trace_take(buffer, _BATCH):
                for line in control.ffi.buffer(buffer, count)[:].decode().splitlines():
                    logging.getLogger("blockyard.trace").debug("%s", line.partition(" ")[2])

        control.lib.by_trace_event(control.tag(take))

    def _switch(self, pattern: str, text: str) -> None:
        on = not pattern.startswith("-")
        name = pattern if on else pattern[1:]
        found = trace.switch(name, on=on) + _native().by_trace_set(name.encode(), on)
        if not found and not any(c in name for c in "*?"):
            print(
                f"{self._program}: --trace {text}: warning: trace event '{name}' does not exist",
                file=sys.stderr,
            )

    def _open(self, path: str | None) -> None:
        """Send what is traced to a file, or to standard error."""
        logger = logging.getLogger("blockyard.trace")
        if path is None and self._handler is not None:
            return
        try:
            made = logging.FileHandler(path, "w") if path else logging.StreamHandler(sys.stderr)
        except OSError as error:
            raise from_os_error(error, f"Error opening logfile {path}") from error
        made.setFormatter(logging.Formatter("%(message)s"))
        if self._handler is not None:
            logger.removeHandler(self._handler)
        logger.addHandler(made)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        self._handler = made


def _parse(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for index, item in enumerate(text.replace(",,", "\0").split(",")):
        key, equals, value = item.partition("=")
        if not equals and index == 0:
            key, value = "enable", item
        if not item:
            continue
        if key not in ("enable", "events", "file"):
            raise InvalidOption(f"Invalid parameter '{key}'")
        values[key] = (value if equals or index == 0 else "on").replace("\0", ",")
    return values


def _lines(path: str) -> list[str]:
    """The names in an events file, without comments."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.strip() for line in file if line.strip() and line[0] != "#"]
    except OSError as error:
        raise EventsFileError(f"{path}: {error.strerror}") from error


def _names() -> list[str]:
    lib, ffi = _native(), _ffi()
    native: list[str] = []
    while (name := lib.by_trace_name(len(native))) != ffi.NULL:
        native.append(ffi.string(name).decode())
    return sorted({*trace.names(), *native})


def _native() -> Any:
    from blockyard._native import lib

    return lib


def _ffi() -> Any:
    from blockyard._native import ffi

    return ffi
