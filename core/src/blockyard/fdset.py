# SPDX-License-Identifier: Apache-2.0
"""Sets of descriptors that clients have passed: what ``/dev/fdset/N`` opens.

A client that may open an image, while the daemon may not, opens it in each way that
will be needed (read-only, read-write, with O_DIRECT), passes the descriptors with
add-fd, and names the set as a file name.  Opening duplicates the descriptor whose
access fits.  A set lives until its members are removed and all duplicates closed.
"""

from __future__ import annotations

import fcntl
import os
import threading

import attrs

from blockyard.errors import BlockyardError, ImageIOError, InvalidOption, NotFound

__all__ = ["FD_SETS", "PREFIX", "FdSet", "FdSets", "Member"]

#: What file names of sets begin with.
PREFIX = "/dev/fdset/"

_MAX_ID = (1 << 63) - 1
_MATCH = os.O_ACCMODE | os.O_DIRECT


@attrs.frozen(eq=False, repr=False)
class Member:
    """A passed descriptor, and the text that came with it."""

    fd: int
    opaque: str | None = None


@attrs.define(eq=False)
class FdSet:
    """The descriptors under one number, the newest first."""

    id: int
    members: list[Member] = attrs.field(factory=list)
    #: Descriptors that :meth:`FdSets.open` made of them and that are still open.
    duplicates: set[int] = attrs.field(factory=set)


class FdSets:
    """All sets of a process, shared by its monitors.  Any thread may use them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sets: dict[int, FdSet] = {}

    def add(self, fd: int, set_id: int | None = None, opaque: str | None = None) -> FdSet:
        """Put ``fd`` into a set; without a number into a new one, the lowest that is free.

        The sets own the descriptor then, but not after an error.

        :raises InvalidOption: if the number is negative.
        """
        if set_id is not None and not 0 <= set_id <= _MAX_ID:
            raise InvalidOption("Parameter 'fdset-id' expects a non-negative value")
        with self._lock:
            number = self._free_id() if set_id is None else set_id
            found = self._sets.setdefault(number, FdSet(number))
            found.members.insert(0, Member(fd, opaque))
        return found

    def remove(self, set_id: int, fd: int | None = None) -> None:
        """Close one descriptor of a set, or all.  Duplicates in use stay open.

        :raises NotFound: if there is no such set, or no such descriptor in it.
        """
        with self._lock:
            found = self._sets.get(set_id)
            going = [m for m in found.members if fd in (None, m.fd)] if found else []
            if not found or (fd is not None and not going):
                what = f"fdset-id:{set_id}" + (f", fd:{fd}" if fd is not None else "")
                raise NotFound(f"File descriptor named '{what}' not found")
            found.members = [m for m in found.members if m not in going]
            self._forget_empty(found)
        for member in going:
            os.close(member.fd)

    def query(self) -> list[FdSet]:
        """The sets, the highest number first, as query-fdsets lists them."""
        with self._lock:
            return [self._sets[number] for number in sorted(self._sets, reverse=True)]

    def open(self, path: str, flags: int) -> int:
        """Open ``/dev/fdset/N``: duplicate the member opened as ``flags`` asks.

        Access mode and O_DIRECT have to match.  The duplicate shares the open file
        with the one that was passed.  Close it with :meth:`close`.

        :raises BlockyardError: if there is no such set, or nothing in it fits.
        """
        digits = path.removeprefix(PREFIX)
        if not (digits.isascii() and digits.isdigit()) or int(digits) > _MAX_ID:
            raise InvalidOption(f"Could not parse fdset {path}")
        with self._lock:
            found = self._sets.get(int(digits))
            if found is None:
                raise NotFound(f"Failed to find fdset {PREFIX}{int(digits)}")
            duplicate = _duplicate(found, flags)
            found.duplicates.add(duplicate)
        return duplicate

    def close(self, fd: int) -> None:
        """Close a descriptor, made by :meth:`open` or not."""
        with self._lock:
            self._release(fd)
        os.close(fd)

    def replace(self, fd: int, target: int) -> None:
        """``dup2(fd, target)``, and close ``fd``: ``target`` is in its set from now on."""
        with self._lock:
            self._release(target)
            os.dup2(fd, target, inheritable=False)
            for found in self._sets.values():
                if fd in found.duplicates:
                    found.duplicates.add(target)
            self._release(fd)
        os.close(fd)

    def _free_id(self) -> int:
        number = 0
        while number in self._sets:
            number += 1
        return number

    def _release(self, fd: int) -> None:
        for found in list(self._sets.values()):
            found.duplicates.discard(fd)
            self._forget_empty(found)

    def _forget_empty(self, found: FdSet) -> None:
        if not found.members and not found.duplicates:
            self._sets.pop(found.id, None)


def _duplicate(found: FdSet, flags: int) -> int:
    for member in found.members:
        if fcntl.fcntl(member.fd, fcntl.F_GETFL) & _MATCH == flags & _MATCH:
            return _dup(member.fd)
    raise BlockyardError(f"Failed to find file descriptor with matching flags=0x{flags:x}")


def _dup(fd: int) -> int:
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
    except OSError as error:
        raise ImageIOError(
            f"Failed to dup() given file descriptor fd={fd}", error.errno or 24
        ) from None


#: The sets of this process.
FD_SETS = FdSets()
