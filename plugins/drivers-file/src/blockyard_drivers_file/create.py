# SPDX-License-Identifier: Apache-2.0
"""Making image files, and QEMU's words for what goes wrong when files are resized."""

from __future__ import annotations

import errno
import os
from typing import Any

from blockyard.errors import BlockyardError, InvalidOption, Unsupported, from_errno, from_os_error
from blockyard.fdset import FD_SETS, PREFIX
from blockyard.permission import ALL, Perm
from blockyard_drivers_file.locks import FileLocks
from blockyard_drivers_file.native import ffi, lib

__all__ = ["PREALLOCATION", "create_file", "remove_file", "resize_error"]

#: QAPI's PreallocMode -> enum by_prealloc.
PREALLOCATION = {"off": 0, "metadata": 1, "falloc": 2, "full": 3}

_DEFAULT_EXTENT = 1 << 20
_MAX_EXTENT = (1 << 32) - 1

_STEPS = {
    lib.BY_FILE_STEP_STAT: "Could not stat file",
    lib.BY_FILE_STEP_RESIZE: "Could not resize file",
    lib.BY_FILE_STEP_ALLOCATE: "Could not preallocate new data",
    lib.BY_FILE_STEP_ZEROES: "Could not write zeros for preallocation",
    lib.BY_FILE_STEP_FLUSH: "Could not flush file to disk",
}


def resize_error(step: int, number: int, prealloc: str) -> BlockyardError:
    """The error for ``enum by_file_step`` ``step`` having failed with errno ``number``."""
    plain = {
        lib.BY_FILE_STEP_SHRINK: "Cannot use preallocation for shrinking files",
        lib.BY_FILE_STEP_MODE: f"Unsupported preallocation mode: {prealloc}",
        lib.BY_FILE_STEP_DEVICE_MODE: (
            f"Preallocation mode '{prealloc}' unsupported for this non-regular file"
        ),
        lib.BY_FILE_STEP_DEVICE_EXACT: "Cannot resize device files",
        lib.BY_FILE_STEP_DEVICE_GROW: "Cannot grow device files",
    }
    if step in plain:
        return Unsupported(plain[step])
    return from_errno(number, _STEPS[step])


def create_file(options: Any) -> None:
    """Make the file that BlockdevCreateOptionsFile describes.  Waits for the file system.

    Nobody else may be resizing it, and what uses it must live with its being emptied.

    :raises BlockyardError: with QEMU's text.
    """
    hint = _DEFAULT_EXTENT if options.extent_size_hint is None else options.extent_size_hint
    if hint > _MAX_EXTENT:
        raise InvalidOption("Extent size hint is too large")
    fd = _create(options.filename)
    try:
        _fill(fd, options, hint)
    finally:
        FD_SETS.close(fd)


def remove_file(filename: str) -> None:
    """Unlink a file.

    :raises ImageIOError: if that fails.
    """
    try:
        os.unlink(filename)
    except OSError as error:
        raise from_os_error(error) from error


def _create(filename: str) -> int:
    if filename.startswith(PREFIX):
        return FD_SETS.open(filename, os.O_RDWR)
    # An existing FIFO must not hang us here either; truncating it fails later.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        return os.open(filename, flags, 0o644)
    except OSError as error:
        raise from_os_error(error, f"Could not create '{filename}'") from None
    except ValueError:  # an embedded null byte
        raise from_errno(errno.ENOENT, f"Could not create '{filename}'") from None


def _fill(fd: int, options: Any, hint: int) -> None:
    locks = FileLocks(options.filename, enabled=True)
    locks.prepare(fd, Perm.WRITE | Perm.RESIZE, ALL & ~Perm.RESIZE)
    try:
        _resize(fd, 0, "off")
        # Both are wishes that few file systems know.
        if options.nocow:
            lib.by_file_set_nocow(fd)
        lib.by_file_set_extent_hint(fd, hint)
        _resize(fd, options.size, options.preallocation or "off")
    finally:
        # A passed descriptor's open file, and with it the locks, may live on.
        locks.forget(fd, locks.held)


def _resize(fd: int, length: int, prealloc: str) -> None:
    step = ffi.new("int *")
    result = lib.by_file_resize(fd, length, PREALLOCATION[prealloc], step)
    if result < 0:
        raise resize_error(step[0], -result, prealloc)
