# SPDX-License-Identifier: Apache-2.0
"""Secrets from files.  A pipe will do; one that never ends, or never begins, will not."""

from __future__ import annotations

import errno
import os
import select
import time

from blockyard.errors import InvalidOption

__all__ = ["LONGEST", "read_file"]

#: Bytes; keys are shorter by far.
LONGEST = 1 << 20
_PATIENCE = 10.0
_CHUNK = 65536


def read_file(name: str) -> bytes:
    """The whole content.  Blocks for up to ten seconds.

    :raises InvalidOption: if it cannot be read, with GLib's text in QEMU's.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise _unreadable(name, "Failed to open file", error) from error
    try:
        return _read_all(fd)
    except OSError as error:
        raise _unreadable(name, "Error reading file", error) from error
    finally:
        os.close(fd)


def _read_all(fd: int) -> bytes:
    found = bytearray()
    until = time.monotonic() + _PATIENCE
    while len(found) <= LONGEST:
        try:
            piece = os.read(fd, _CHUNK)
        except BlockingIOError:
            _wait(fd, until)
            continue
        if not piece:
            return bytes(found)
        found += piece
    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _wait(fd: int, until: float) -> None:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    if not poller.poll(max(0.0, until - time.monotonic()) * 1000):
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def _unreadable(name: str, what: str, error: OSError | ValueError) -> InvalidOption:
    reason = os.strerror(getattr(error, "errno", None) or errno.EINVAL)
    return InvalidOption(f"Unable to read {name}: {what} “{name}”: {reason}")
