# SPDX-License-Identifier: Apache-2.0
"""Locks that keep other processes, a running QEMU among them, out of an image.

As QEMU has them: for each permission that is used, a shared lock on byte 100 plus
the permission's number; for each that is not shared, one on byte 200 plus it.
Nobody ever takes an exclusive lock: a conflict shows in asking (F_OFD_GETLK)
whether an exclusive lock would be possible.  The locks belong to the open file
description.
"""

from __future__ import annotations

import errno

from blockyard.errors import PermissionConflict, from_errno
from blockyard.permission import ALL, NONE, Perm, names
from blockyard_drivers_file.native import lib

__all__ = ["FileLocks", "check", "wanted"]

_USED = 100
_UNSHARED = 200


def wanted(perm: Perm, shared: Perm) -> frozenset[int]:
    """The bytes that somebody with these permissions locks."""
    used = {_USED + number for number, flag in enumerate(Perm) if flag & perm}
    return frozenset(used | {_UNSHARED + n for n, flag in enumerate(Perm) if not flag & shared})


def check(fd: int, perm: Perm, shared: Perm, filename: str) -> None:
    """Look for others' locks that speak against these permissions.

    :raises PermissionConflict: with QEMU's text; its hint is the error's note.
    """
    tests = [(_UNSHARED + n, flag, "") for n, flag in enumerate(Perm) if flag & perm]
    tests += [(_USED + n, flag, "shared ") for n, flag in enumerate(Perm) if not flag & shared]
    for byte, flag, how in tests:
        if result := lib.by_file_lock_test(fd, byte):
            error = _error(result, f'Failed to get {how}"{names(flag)}" lock')
            error.add_note(f"Is another process using the image [{filename}]?")
            raise error


def _error(result: int, text: str) -> PermissionConflict:
    # That somebody else has it is the common case and says nothing more.
    taken = -result in (errno.EAGAIN, errno.EACCES)
    return PermissionConflict(text if taken else str(from_errno(result, text)))


class FileLocks:
    """The locks of one node, on one descriptor at a time.

    Every method makes system calls that may wait: call them on a thread.
    """

    def __init__(self, filename: str, enabled: bool) -> None:
        self._filename = filename
        self._enabled = enabled
        self._perm, self._shared = NONE, ALL
        self._held: frozenset[int] = frozenset()

    @property
    def held(self) -> frozenset[int]:
        """The bytes that are locked now."""
        return self._held

    def prepare(self, fd: int, perm: Perm, shared: Perm) -> None:
        """Hold what the old and the new permissions need both, if nobody objects.

        :raises PermissionConflict: and what was held before is held again.
        """
        if perm & ~self._perm or self._shared & ~shared:
            try:
                self._take(fd, wanted(perm, shared))
                if self._enabled:
                    check(fd, perm, shared, self._filename)
            except PermissionConflict:
                self.abort(fd)
                raise

    def commit(self, fd: int, perm: Perm, shared: Perm) -> None:
        """Let go of what only the old permissions needed.  Cannot fail."""
        self._perm, self._shared = perm, shared
        self.abort(fd)

    def abort(self, fd: int) -> None:
        """Let go of what only the prepared permissions needed.  Cannot fail."""
        for byte in sorted(self._held - wanted(self._perm, self._shared)):
            lib.by_file_unlock(fd, byte)
            self._held -= {byte}

    def copy(self, fd: int) -> None:
        """Take on another descriptor of the file what is held on the first.

        :raises PermissionConflict: if the kernel refuses; nothing is left locked.
        """
        done: list[int] = []
        for byte in sorted(self._held):
            if result := lib.by_file_lock(fd, byte):
                self.forget(fd, done)
                raise _error(result, f"Failed to lock byte {byte}")
            done.append(byte)

    def forget(self, fd: int, held: list[int] | frozenset[int]) -> None:
        """Unlock bytes of a descriptor that is about to go, whoever else still has it."""
        for byte in held:
            lib.by_file_unlock(fd, byte)

    def _take(self, fd: int, more: frozenset[int]) -> None:
        for byte in sorted(more - self._held) if self._enabled else ():
            if result := lib.by_file_lock(fd, byte):
                raise _error(result, f"Failed to lock byte {byte}")
            self._held |= {byte}
