# SPDX-License-Identifier: Apache-2.0
"""The log of a chardev: a copy of all that goes out through it."""

import os
from datetime import UTC, datetime
from typing import Any

from blockyard.errors import from_os_error

__all__ = ["LogFile"]


class LogFile:
    """An open log file."""

    def __init__(self, options: Any) -> None:
        """``options`` has logfile, logappend and logtimestamp.

        :raises ImageIOError: if the file cannot be opened.
        """
        # A FIFO without a reader is an error here; it must not block.
        flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        flags |= os.O_APPEND if options.logappend else os.O_TRUNC
        try:
            self._fd = os.open(options.logfile, flags, 0o666)
        except OSError as error:
            raise from_os_error(error, f"Could not create '{options.logfile}'") from error
        self._timestamp = bool(options.logtimestamp)
        self._line_start = True

    def write(self, data: bytes) -> None:
        """Append; a full disk or a slow reader costs lines of the log, nothing else."""
        if self._timestamp:
            data = self._stamped(data)
        try:
            os.write(self._fd, data)
        except OSError:
            # The log is a convenience; the client must not suffer from it.
            pass

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _stamped(self, data: bytes) -> bytes:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ ").encode()
        lines = data.splitlines(keepends=True)
        stamped = [now + line if i or self._line_start else line for i, line in enumerate(lines)]
        self._line_start = data.endswith(b"\n")
        return b"".join(stamped)
