# SPDX-License-Identifier: Apache-2.0
"""The control half of ``preallocate``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from blockyard.errors import BlockyardError, InvalidOption
from blockyard.filterdriver import FilterDriver
from blockyard.node import Opened
from blockyard.permission import Perm
from blockyard_filters_preallocate.native import ffi, lib

if TYPE_CHECKING:
    from blockyard.node import Child, Node

__all__ = ["PreallocateDriver"]

_log = logging.getLogger(__name__)

_SECTOR = 512
_ALIGN = 1 << 20
_SIZE = 128 << 20
_MOST = (1 << 63) - 1
_GROWS = Perm.WRITE | Perm.RESIZE


def _steps(options: Any) -> tuple[int, int]:
    """How much is preallocated, and what its end is aligned to.

    :raises InvalidOption: with QEMU's text.
    """
    align = _ALIGN if options.prealloc_align is None else options.prealloc_align
    size = _SIZE if options.prealloc_size is None else options.prealloc_size
    for name, value in (("prealloc-align", align), ("prealloc-size", size)):
        if not 0 <= value <= _MOST:
            raise InvalidOption(f"Value '{value}' is out of range for parameter '{name}'")
    if align % _SECTOR:
        raise InvalidOption(
            f"prealloc-align parameter of preallocate filter is not aligned to {_SECTOR}"
        )
    return size, max(align, 1)


class PreallocateDriver(FilterDriver):
    """The file is longer than its data while somebody may write and resize it."""

    def __init__(self, options: Any, node: Node) -> None:
        super().__init__(options, node)
        self._state = ffi.NULL
        self._active = False
        #: Whether the permissions that are being checked end it.
        self._ended = False
        self._steps = (0, 1)

    async def open(self) -> Opened:
        """Nothing is preallocated before there is a user who may.

        :raises InvalidOption: if an option's value is refused.
        """
        size, align = _steps(self.options)
        self._state = lib.by_preallocate_create()
        if self._state == ffi.NULL:
            raise MemoryError
        lib.by_preallocate_set(self._state, size, align)
        return Opened(
            ops=lib.by_preallocate_ops(),
            state=int(ffi.cast("uintptr_t", self._state)),
            length=self.shown.length,
            limits=self.shown_limits(),
        )

    async def before_close(self) -> None:
        """Give back what is behind the data."""
        await self._give_back()

    async def close(self) -> None:
        """Free the state."""
        lib.by_preallocate_free(self._state)
        self._state = ffi.NULL

    async def set_active(self, active: bool) -> None:
        """The next owner of the image sees a file without what is behind its data."""
        if not active:
            await self._give_back()

    def child_resized(self, child: Child) -> int | None:
        """The file's length, except while it has something behind the data."""
        return None if self._active else super().child_resized(child)

    def strong_options(self) -> dict[str, Any]:
        """None: they change the file's length, not what is shown."""
        return {}

    # -- permissions

    def child_permissions(self, child: Child, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """As a filter's; nobody else changes a file of which the ends are known here."""
        wanted, offered = super().child_permissions(child, perm, shared)
        if wanted & _GROWS == _GROWS:
            offered &= ~_GROWS
        return wanted, offered

    async def check_permissions(self, perm: Perm, shared: Perm) -> None:
        """Give back what is behind the data while the permissions for it are there."""
        if perm & _GROWS != _GROWS:
            self._ended = self._active
            await self._give_back()

    async def set_permissions(self, perm: Perm, shared: Perm) -> None:
        """Begin when there is a user who writes and resizes."""
        self._ended = False
        if perm & _GROWS == _GROWS and self._state != ffi.NULL and self.node.writable:
            self._begin()

    async def abort_permissions(self) -> None:
        """Go on for those who are there still."""
        if self._ended:
            self._begin()
        self._ended = False

    def _begin(self) -> None:
        if not self._active:
            self._active = True
            lib.by_preallocate_begin(self._state, self.shown.length)

    async def _give_back(self) -> None:
        if not self._active:
            return
        self._active = False
        end = ffi.new("uint64_t *")
        if lib.by_preallocate_end(self._state, end):
            try:
                async with self.node.reading("file") as file:
                    await file.truncate(end[0], exact=True)
            except BlockyardError as error:
                _log.warning("Failed to drop preallocation of node '%s': %s", self.node.name, error)

    # -- reopen

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        """Both options can change, and cannot be left out once they were given.

        :raises InvalidOption: with QEMU's text.
        """
        for name in ("prealloc_align", "prealloc_size"):
            if getattr(options, name) is None and getattr(self.options, name) is not None:
                dashed = name.replace("_", "-")
                raise InvalidOption(f"Option '{dashed}' cannot be reset to its default value")
        self._steps = _steps(options)

    def reopen_commit(self) -> None:
        """Take the new steps from now on."""
        lib.by_preallocate_set(self._state, *self._steps)
