# SPDX-License-Identifier: Apache-2.0
"""Which of several wrong members QEMU names: the one that its hash tables have first.

QEMU keeps an object's members in a table of 512 chains, and while it visits an object,
the names that nobody has asked for in a GHashTable of GLib (open addressing, triangular
probing).  Both orders are fixed, so a client can see the same name from us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["dict_order", "first_unvisited"]

_CHAINS = 512
_WORD = 0xFFFFFFFF
#: GLib's modulus for a table of 2**index slots.
_PRIMES = (1, 2, 3, 7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093, 8191, 16381, 32749)
_SMALLEST = 3
#: Beyond this many names the order is that in which they were given.
_MOST = 1 << 14


def dict_order(names: Sequence[str]) -> list[str]:
    """The names of an object's members, given in the order of the text, in QEMU's order."""
    newest_first = names[::-1]  # a chain begins with what was added last
    return sorted(newest_first, key=_chain)


def first_unvisited(names: Sequence[str], visited: Iterable[str]) -> str:
    """Which of ``names`` is named when those ``visited``, in that order, were asked for.

    At least one was not.
    """
    if len(names) > _MOST:
        asked = set(visited)
        return next(name for name in names if name not in asked)
    table = _Table()
    for name in dict_order(names):
        table.add(name)
    for name in visited:
        table.remove(name)
    return table.first()


def _signed(name: str) -> Iterable[int]:
    """The bytes of a name as C's ``char``."""
    return (byte - 256 if byte > 127 else byte for byte in name.encode("utf-8", "replace"))


def _chain(name: str) -> int:
    """The chain of a name: a multiply-and-shift hash, as in Samba's tdb."""
    value = 0x238F13AF * len(name.encode("utf-8", "replace"))
    for index, byte in enumerate(_signed(name)):
        value += byte << index * 5 % 24
    return (1103515243 * value + 12345 & _WORD) % _CHAINS


def _string_hash(name: str) -> int:
    """g_str_hash, Bernstein's; GLib keeps 0 and 1 for empty slots."""
    value = 5381
    for byte in _signed(name):
        value = value * 33 + byte & _WORD
    return max(value, 2)


class _Table:
    """A GHashTable's slots: a name, None where there never was one, or False after removal."""

    def __init__(self) -> None:
        self._slots: list[str | bool | None] = [None] * (1 << _SMALLEST)
        self._shift = _SMALLEST
        self._names = 0
        self._occupied = 0

    def first(self) -> str:
        """The name in the lowest slot."""
        return next(slot for slot in self._slots if isinstance(slot, str))

    def add(self, name: str) -> None:
        """Put a name that is not there."""
        slot = self._find(name)
        self._occupied += self._slots[slot] is None
        self._slots[slot] = name
        self._names += 1
        self._fit()

    def remove(self, name: str) -> None:
        """Take a name that is there."""
        self._slots[self._find(name)] = False
        self._names -= 1
        self._fit()

    def _home(self, name: str) -> int:
        return (_string_hash(name) * 11 & _WORD) % _PRIMES[self._shift]

    def _find(self, name: str) -> int:
        """The slot that has the name or shall have it."""
        slot, step, free = self._home(name), 0, None
        while self._slots[slot] is not None:
            if self._slots[slot] == name:
                return slot
            if self._slots[slot] is False and free is None:
                free = slot
            step += 1
            slot = (slot + step) % len(self._slots)
        return slot if free is None else free

    def _fit(self) -> None:
        size = len(self._slots)
        sparse = size > self._names * 4 and self._shift > _SMALLEST
        if sparse or size <= self._occupied + self._occupied // 16:
            self._resize()

    def _resize(self) -> None:
        """Move every name to its slot in a table of the fitting size, in place."""
        old: list[str | bool | None] = [slot or None for slot in self._slots]
        self._shift = max(_SMALLEST, int(self._names * 1.333).bit_length())
        size = 1 << self._shift
        self._slots = old + [None] * (size - len(old))
        placed: set[int] = set()
        for index in range(len(old)):
            if index not in placed and (name := self._slots[index]) is not None:
                self._slots[index] = None
                self._evict(str(name), size, placed)
        del self._slots[size:]
        self._occupied = self._names

    def _evict(self, name: str, size: int, placed: set[int]) -> None:
        """Put a name in its slot, then the one that was there in its own, and so on."""
        moving: str | None = name
        while moving is not None:
            slot, step = self._home(moving), 0
            while slot in placed:
                step += 1
                slot = (slot + step) % size
            placed.add(slot)
            before = self._slots[slot]
            self._slots[slot] = moving
            moving = before if isinstance(before, str) else None
