# SPDX-License-Identifier: Apache-2.0
"""The control half of ``blklogwrites``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import attrs

from blockyard.errors import BlockyardError, InvalidOption
from blockyard.filterdriver import FilterDriver
from blockyard.node import Opened
from blockyard_filters_debug.native import ffi, lib
from blockyard_filters_debug.writelog import (
    DEFAULT_SECTOR_SIZE,
    Position,
    check_sector_size,
    find_end,
)

if TYPE_CHECKING:
    from blockyard.node import Node

__all__ = ["BlklogwritesDriver"]

_log = logging.getLogger(__name__)

_INTERVAL = 4096


class BlklogwritesDriver(FilterDriver):
    """Writes what changes a disk to a log, from which it can be done again."""

    def __init__(self, options: Any, node: Node) -> None:
        super().__init__(options, node)
        self._state = ffi.NULL

    async def open(self) -> Opened:
        """Find the end of a log to append to; a new one is not written before its first entry.

        :raises BlockyardError: with QEMU's text, for options that are refused and for an
            existing log that is none.
        """
        position = await self._position()
        interval = self.options.log_super_update_interval
        if interval == 0:
            raise InvalidOption(f"Invalid log superblock update interval {interval}")
        self._state = lib.by_logwrites_create(
            ffi.new(
                "struct by_logwrites_settings *",
                {
                    "interval": interval or _INTERVAL,
                    "next": position.next,
                    "entries": position.entries,
                    "sector_size": position.sector_size,
                },
            )
        )
        if self._state == ffi.NULL:
            raise MemoryError
        return Opened(
            ops=lib.by_logwrites_ops(),
            state=int(ffi.cast("uintptr_t", self._state)),
            length=self.shown.length,
            limits=attrs.evolve(self.shown_limits(), request_alignment=position.sector_size),
        )

    async def _position(self) -> Position:
        size = self.options.log_sector_size
        if self.options.log_append:
            if size is not None:
                raise InvalidOption("log-append and log-sector-size are mutually exclusive")
            async with self.node.reading("log") as access:
                return await find_end(access, self.node.children["log"].node.length)
        size = DEFAULT_SECTOR_SIZE if size is None else size
        check_sector_size(size)
        return Position(size)

    async def before_close(self) -> None:
        """Write the superblock, if the flush before has not come so far."""
        await self._settle()

    async def close(self) -> None:
        """Free the state."""
        lib.by_logwrites_free(self._state)
        self._state = ffi.NULL

    async def set_active(self, active: bool) -> None:
        """Whoever gets the log finds a superblock that counts all entries."""
        if not active:
            await self._settle()

    async def _settle(self) -> None:
        if self.node.read_only:
            return
        size = self.node.limits.request_alignment
        sector = ffi.new("unsigned char[]", size)
        if not lib.by_logwrites_superblock(self._state, sector):
            return
        try:
            async with self.node.reading("log") as access:
                await access.write(0, bytes(ffi.buffer(sector)))
                await access.flush()
        except BlockyardError as error:
            _log.warning("Failed to write the log superblock of '%s': %s", self.node.name, error)

    def can_compress(self) -> bool:
        """The log has no word for it."""
        return False
