# SPDX-License-Identifier: Apache-2.0
"""The control half of ``null-co`` and ``null-aio``, which differ in name only."""

from __future__ import annotations

import errno
from typing import Any

from blockyard.errors import InvalidOption, from_errno
from blockyard.node import Driver, Opened
from blockyard.request import MAX_LENGTH
from blockyard_drivers_null.native import ffi, lib

__all__ = ["NullDriver"]

_SECTOR = 512
_DEFAULT_SIZE = 1 << 30
_MAX_LATENCY = (1 << 63) - 1


class NullDriver(Driver):
    """Reads give zeroes, writes go nowhere."""

    def __init__(self, options: Any, node: Any) -> None:
        super().__init__(options, node)
        self._state = ffi.NULL

    async def open(self) -> Opened:
        """Make the state.

        :raises BlockyardError: if the size or the latency is out of range.
        """
        size = _DEFAULT_SIZE if self.options.size is None else self.options.size
        latency = self.options.latency_ns or 0
        if size < 0:
            raise InvalidOption(f"Value '{size}' is out of range for parameter 'size'")
        if size > MAX_LENGTH:
            raise from_errno(errno.EFBIG, "Could not refresh total sector count")
        if not 0 <= latency <= _MAX_LATENCY:
            raise InvalidOption("latency-ns is invalid")
        settings = {"latency_ns": latency, "read_zeroes": bool(self.options.read_zeroes)}
        self._state = lib.by_null_create(ffi.new("struct by_null_settings *", settings))
        if self._state == ffi.NULL:
            raise MemoryError
        return Opened(
            ops=lib.by_null_ops(self.node.type.name == "null-aio"),
            state=int(ffi.cast("uintptr_t", self._state)),
            length=(size + _SECTOR - 1) & -_SECTOR,
        )

    async def close(self) -> None:
        """Free the state."""
        lib.by_null_free(self._state)
        self._state = ffi.NULL

    def exact_filename(self) -> str | None:
        """``null-co://``, which is the default size and no promise; latency does not matter."""
        if self.options.size is not None or self.options.read_zeroes is not None:
            return None
        return f"{self.node.type.name}://"

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        """Nothing but flags can change, and they need nothing."""

    async def allocated_size(self) -> int | None:
        """None of it."""
        return 0
