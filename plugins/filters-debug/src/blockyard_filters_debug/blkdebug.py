# SPDX-License-Identifier: Apache-2.0
"""The control half of ``blkdebug``."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from blockyard.changes.options import flatten
from blockyard.errors import InvalidOption, from_errno
from blockyard.naming import names_of
from blockyard.node import Child, Driver, Node, Opened
from blockyard.permission import Perm
from blockyard.request import Limits
from blockyard_filters_debug.config import MAX_BYTES, Section, parse_config
from blockyard_filters_debug.native import ffi, lib
from blockyard_filters_debug.rules import event_number, native_rules, sections_of

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BlkdebugDriver"]

_INT_MAX = (1 << 31) - 1


class BlkdebugDriver(Driver):
    """Injects errors into requests, and stops them at breakpoints."""

    def __init__(self, options: Any, node: Any) -> None:
        super().__init__(options, node)
        self._state = ffi.NULL
        self._tag = 0
        self._ids = itertools.count(1)
        #: The breakpoints' tags by their ids, those that wait and those that hold.
        self._tags: dict[int, str] = {}
        #: How many requests each tag holds.
        self._suspended: Counter[str] = Counter()

    @property
    def image(self) -> Node:
        """The node below."""
        return self.node.children["image"].node

    # -- life

    async def open(self) -> Opened:
        """Read the rules, and let the event ``none`` happen.

        :raises BlockyardError: if the file cannot be read or understood, or the limits
            do not fit together.
        """
        sections = [*await self._file_sections(), *sections_of(self.options)]
        limits = self._limits()
        self._tag = self.node.graph.carrier.control.tag(self._stopped)
        self._state = lib.by_blkdebug_create(self._settings(limits))
        if self._state == ffi.NULL:
            raise MemoryError
        for rule in native_rules(sections):
            self._add(rule)
        lib.by_blkdebug_raise(self._state, event_number("none"))
        return Opened(
            ops=lib.by_blkdebug_ops(),
            state=int(ffi.cast("uintptr_t", self._state)),
            length=self.image.length,
            limits=limits,
        )

    async def close(self) -> None:
        """Free the rules."""
        self.node.graph.carrier.control.release(self._tag)
        lib.by_blkdebug_free(self._state)
        self._state = ffi.NULL

    async def _file_sections(self) -> list[Section]:
        if not self.options.config:
            return []
        return parse_config(await anyio.to_thread.run_sync(_read, self.options.config))

    def _add(self, rule: dict[str, Any]) -> None:
        if lib.by_blkdebug_add(self._state, ffi.new("struct by_blkdebug_rule *", rule)) < 0:
            raise MemoryError

    # -- limits

    def _limits(self) -> Limits:
        options, below = self.options, self.image.limits
        own = _checked("align", options.align)
        if own >= _INT_MAX or own & (own - 1):
            raise InvalidOption(f"Cannot meet constraints with align {own}")
        align = max(own, below.request_alignment)
        zero = _multiple("opt-write-zero", options.opt_write_zero, align)
        discard = _multiple("opt-discard", options.opt_discard, align)
        return Limits(
            request_alignment=own or 1,
            memory_alignment=below.memory_alignment,
            max_transfer=_multiple("max-transfer", options.max_transfer, align),
            max_write_zeroes=_multiple("max-write-zero", options.max_write_zero, max(zero, align)),
            max_discard=_multiple("max-discard", options.max_discard, max(discard, align)),
            write_zeroes_alignment=zero,
            discard_alignment=discard or below.discard_alignment,
            optimal_transfer=below.optimal_transfer,
        )

    def _settings(self, limits: Limits) -> Any:
        return ffi.new(
            "struct by_blkdebug_settings *",
            {
                "write_zeroes_least": max(limits.request_alignment, limits.write_zeroes_alignment),
                "tag": self._tag,
            },
        )

    # -- permissions

    def child_permissions(self, child: Child, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """A filter's, with what the options take and do not share."""
        wanted, offered = super().child_permissions(child, perm, shared)
        taken = _permissions(self.options.take_child_perms or ())
        return wanted | taken, offered & ~_permissions(self.options.unshare_child_perms or ())

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        """Nothing but flags can change, and they need nothing."""

    # -- names

    def exact_filename(self) -> str | None:
        """``blkdebug:CONFIG:IMAGE``, where nothing but these two was given."""
        exact = names_of(self.image).exact
        if exact is None or self.strong_options().keys() - {"config"}:
            return None
        return f"blkdebug:{self.options.config or ''}:{exact}"

    def strong_options(self) -> dict[str, Any]:
        """All that were given, lists as QEMU's names have them: ``inject-error.0.event``."""
        return flatten(super().strong_options())

    # -- breakpoints

    def debug_breakpoint(self, event: str, tag: str) -> None:
        """Stop the next request that announces ``event``, and call it ``tag``.

        :raises ImageIOError: ENOENT if there is no such event.
        """
        try:
            number = event_number(event)
        except ValueError:
            raise from_errno(errno.ENOENT) from None
        identifier = next(self._ids)
        self._tags[identifier] = tag
        self._add({"action": 2, "event": number, "id": identifier})

    def debug_remove_breakpoint(self, tag: str) -> None:
        """Take the breakpoints called ``tag`` away; what they stopped goes on.

        :raises ImageIOError: ENOENT if there is none.
        """
        self._each(tag, lib.by_blkdebug_remove)

    def debug_resume(self, tag: str) -> None:
        """Let the request called ``tag`` go on.

        :raises ImageIOError: ENOENT if none that is stopped has this name.
        """
        if not self._suspended[tag]:
            raise from_errno(errno.ENOENT)
        self._each(tag, lib.by_blkdebug_resume)

    def debug_is_suspended(self, tag: str) -> bool:
        """Whether a request called ``tag`` is stopped now."""
        return self._suspended[tag] > 0

    def _each(self, tag: str, function: Any) -> None:
        found = [identifier for identifier, name in self._tags.items() if name == tag]
        if not found:
            raise from_errno(errno.ENOENT)
        removes = function is lib.by_blkdebug_remove
        for identifier in found:
            if function(self._state, identifier):
                self._suspended[tag] -= 1
                print(f"blkdebug: Resuming request '{tag}'", flush=True)
                del self._tags[identifier]
            elif removes:
                del self._tags[identifier]

    def _stopped(self, event: Any) -> None:
        tag = self._tags.get(event.a)
        if tag is not None:
            self._suspended[tag] += 1
            print(f"blkdebug: Suspended request '{tag}'", flush=True)


def _read(name: str) -> str:
    try:
        # Not blocking: a FIFO would hold us for ever.
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None) or errno.EINVAL
        raise from_errno(number, f"Could not open '{name}'") from error
    try:
        data = _content(fd)
    except OSError as error:
        raise from_errno(error.errno or errno.EIO, "Cannot read config file") from error
    finally:
        os.close(fd)
    return data.decode(errors="surrogateescape")


def _content(fd: int) -> bytes:
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        raise OSError(errno.ESPIPE, "")
    data = b""
    while part := os.read(fd, MAX_BYTES):
        data += part
        if len(data) > MAX_BYTES:
            raise OSError(errno.EFBIG, "")
    return data


def _checked(name: str, value: int | None) -> int:
    if value is not None and value < 0:
        raise InvalidOption(f"Value '{value}' is out of range for parameter '{name}'")
    return value or 0


def _multiple(name: str, value: int | None, unit: int) -> int:
    size = _checked(name, value)
    if size >= _INT_MAX or size % unit:
        raise InvalidOption(f"Cannot meet constraints with {name} {size}")
    return size


def _permissions(names: Iterable[str]) -> Perm:
    perm = Perm(0)
    for name in names:
        perm |= Perm[str(name).upper().replace("-", "_")]
    return perm
