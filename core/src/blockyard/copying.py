# SPDX-License-Identifier: Apache-2.0
"""Copying ranges of images, and comparing images, natively.

:class:`Copier` moves ranges of bytes from one or several roots to another.  Every
request of it is sent, carried and ended in C; Python starts it, looks how far it is,
changes its rate, pauses it, cancels it, and learns how it ended::

    copier = Copier(control, target, [Range(source=root, bytes=length)], chunk=1 << 20)
    await copier.run()

What is different from job to job is which ranges are copied and what is left out:

========================  ===========================================================
a whole image             one range for each source, ``target_offset`` one behind the other
a layer (commit)          ``Range(layers=1)``: what the backing chain decides is left out
what is missing (stream)  ``missing=True``: only where the target itself decides nothing
what differs (rebase)     ``reference=``: what reads the same there is left alone
what is dirty (mirror)    a range for each run of dirty bits, once more as bits are set
========================  ===========================================================

:class:`Comparer` finds the first difference of two roots the same way.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import attrs

from blockyard.errors import BlockyardError, from_errno
from blockyard.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blockyard.loop import Control, Event, Loop
    from blockyard.root import Root

__all__ = [
    "KNOWN_ZEROES",
    "Comparer",
    "Comparison",
    "Copier",
    "CopyFailed",
    "Difference",
    "Progress",
    "Range",
    "Side",
]

#: ``sparse``: what the source's status calls zeroes, data is not looked at.
KNOWN_ZEROES = 1 << 62

_UNREADABLE = 16
_UNREADABLE_STATUS = 17
_NO_RANGE = 2**32 - 1


class Side(enum.IntEnum):
    """What failed."""

    STATUS = 1
    READ = 2
    WRITE = 3


class CopyFailed(BlockyardError):  # noqa: N818
    """Raised when a copy or a comparison meets an error: where, and doing what."""

    def __init__(self, errno: int, offset: int, side: Side, index: int | None) -> None:
        self.cause = from_errno(-errno)
        super().__init__(str(self.cause))
        self.errno = errno
        #: In the target; of a comparison, in both.
        self.offset = offset
        self.side = side
        #: Which range, or which of the two images; None: the reference.
        self.index = index


@attrs.frozen(kw_only=True)
class Range:
    """A range to copy.  Bytes everywhere."""

    #: None, and what lies behind its end, are zeroes.
    source: Root | None
    bytes: int
    offset: int = 0
    target_offset: int = 0
    #: How many layers of the source's backing chain are copied: what they do not decide
    #: is left alone.  0: everything is copied.
    layers: int = 0
    #: What is not written of it in the target reads as zeroes.
    target_is_zero: bool = False


@attrs.frozen
class Progress:
    """How far something is, in bytes."""

    done: int
    total: int

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        return self.done / self.total if self.total else 1.0


class Copier(Runner):
    """One copy.  The roots stay open, and their nodes on their loops, until it has ended."""

    def __init__(
        self,
        control: Control,
        target: Root,
        ranges: Sequence[Range],
        *,
        parallel: int = 8,
        chunk: int = 0,
        unit: int = 0,
        sparse: int = 4096,
        rate: int = 0,
        reference: Root | None = None,
        in_order: bool = True,
        offload: bool = False,
        salvage: bool = False,
        compressed: bool = False,
        target_is_zero: bool = False,
        missing: bool = False,
        inner: bool = False,
        unchanged: bool = False,
        count: bool = False,
        unreadable: Callable[[int, int, int, Side], None] | None = None,
    ) -> None:
        """Prepare a copy to ``target``.

        :param ranges: ascending in the target, without overlaps; gaps are left alone.
        :param parallel: requests in flight, 1 to 64.
        :param chunk: bytes read at a time; 0: what is fast.
        :param unit: writes begin and end at multiples of it, or where the ranges end; a
            power of two, or 0.
        :param sparse: so many zero bytes in a row become a hole (rounded down to sectors);
            0: zeroes are written as data wherever they are.
        :param rate: bytes per second; 0: no limit.
        :param reference: what reads the same there, at the target's offset, is not written.
        :param in_order: writes are sent from the front to the back.
        :param offload: the drivers are asked to copy by themselves first.
        :param salvage: sectors that cannot be read become zeroes; ``unreadable`` is told
            the offset, the bytes, the errno and whether their status or they were asked.
        :param compressed: units are written compressed.
        :param target_is_zero: what is not written reads as zeroes.
        :param missing: only what the target's own layer does not decide is copied.
        :param inner: a drain does not stop the requests.
        :param unchanged: what is written changes nothing that anybody sees.
        :param count: the ranges are walked before, so that the progress is of the data.
        """
        super().__init__(control)
        self._last = Progress(0, 0)
        self._target = target
        self._ranges = list(ranges)
        self._reference = reference
        self._unreadable = unreadable
        lib = control.lib
        flags = {
            lib.BY_COPY_OUT_OF_ORDER: not in_order,
            lib.BY_COPY_OFFLOAD: offload,
            lib.BY_COPY_SALVAGE: salvage,
            lib.BY_COPY_COMPRESSED: compressed,
            lib.BY_COPY_TARGET_ZERO: target_is_zero,
            lib.BY_COPY_MISSING: missing,
            lib.BY_COPY_INNER: inner,
            lib.BY_COPY_UNCHANGED: unchanged,
            lib.BY_COPY_COUNT: count,
        }
        self._fields = {
            "flags": sum(flag for flag, on in flags.items() if on),
            "parallel": parallel,
            "chunk": chunk,
            "unit": unit,
            "sparse": sparse,
            "rate": rate,
        }

    async def run(self) -> None:
        """Copy.  Cancelling ends the copy, and waits until nothing of it is in flight.

        :raises CopyFailed: if something fails; what was written stays.
        """
        try:
            result = (await self._run()).result
            self._check(result)
        finally:
            self._end()

    @property
    def progress(self) -> Progress:
        """How far it is; any time, any thread of Python's."""
        if self._native is None:
            return self._last
        raw = self._control.ffi.new("struct by_copy_progress *")
        self._control.lib.by_copier_progress(self._native, raw)
        return Progress(raw.done, raw.total)

    def set_rate(self, rate: int) -> None:
        """Change the limit, bytes per second; 0: none."""
        self._fields["rate"] = rate
        if self._native is not None:
            self._control.lib.by_copier_set_rate(self._native, rate)

    def set_paused(self, paused: bool) -> None:
        """Start no more requests, or go on."""
        if self._native is not None:
            self._control.lib.by_copier_set_paused(self._native, paused)

    def _start(self, tag: int) -> Any:
        ffi = self._control.ffi
        ranges = ffi.new("struct by_copy_range[]", [self._range(r) for r in self._ranges])
        params = ffi.new(
            "struct by_copy_params *",
            {
                **self._fields,
                "target": self._target.native,
                "ranges": ranges,
                "nranges": len(self._ranges),
                "reference": self._reference.native if self._reference else ffi.NULL,
                "tag": tag,
            },
        )
        return self._control.lib.by_copier_start(params)

    def _range(self, item: Range) -> dict[str, Any]:
        return {
            "source": item.source.native if item.source else self._control.ffi.NULL,
            "offset": item.offset,
            "bytes": item.bytes,
            "target_offset": item.target_offset,
            "layers": item.layers,
            "target_zero": item.target_is_zero,
        }

    def _cancel(self) -> None:
        self._control.lib.by_copier_cancel(self._native)

    def _event(self, event: Event) -> None:
        if self._unreadable is not None:
            side = Side.STATUS if event.kind == _UNREADABLE_STATUS else Side.READ
            self._unreadable(event.a, event.b, -event.result, side)

    def _check(self, result: int) -> None:
        if result >= 0:
            return
        raw = self._control.ffi.new("struct by_copy_progress *")
        self._control.lib.by_copier_progress(self._native, raw)
        if not raw.failed_side:
            raise from_errno(result)
        index = None if raw.failed_range == _NO_RANGE else raw.failed_range
        raise CopyFailed(-result, raw.failed_at, Side(raw.failed_side), index)

    def _end(self) -> None:
        if self._native is not None:
            self._last = self.progress
            self._control.lib.by_copier_free(self._native)
            self._native = None


class Comparison(enum.IntEnum):
    """How two images compare."""

    EQUAL = 0
    #: A sector differs.
    DIFFERENT = 1
    #: What is allocated differs; only where that was asked.
    STATUS = 2


@attrs.frozen
class Difference:
    """What a comparison found."""

    kind: Comparison
    #: Bytes; of the first sector that differs, or where the status does.
    offset: int


class Comparer(Runner):
    """One comparison; the shorter image is taken for zeroes behind its end."""

    def __init__(
        self,
        control: Control,
        roots: tuple[Root, Root],
        *,
        helper: Loop | None = None,
        strict: bool = False,
        parallel: int = 0,
        chunk: int = 0,
    ) -> None:
        """``strict``: what is allocated must be the same as well, as far as both reach.

        The work is done on the first root's loop, and half of it on ``helper``, which
        stays until it is over.
        """
        super().__init__(control)
        self._last = Progress(0, 0)
        self._roots = roots
        self._helper = control.ffi.NULL if helper is None else helper.native
        self._fields = {"strict": strict, "parallel": parallel, "chunk": chunk}

    async def run(self) -> Difference:
        """Compare; what was found first.

        :raises CopyFailed: if something cannot be read before a difference is found.
        """
        try:
            result = (await self._run()).result
            raw = self._raw()
            if result < 0 and raw.end != self._control.lib.BY_COMPARE_FAILED:
                raise from_errno(result)
            if result < 0:
                raise CopyFailed(-result, raw.at, Side(raw.side), raw.index)
            return Difference(Comparison(raw.end), raw.at)
        finally:
            self._end()

    @property
    def progress(self) -> Progress:
        """How far it is; any time."""
        if self._native is None:
            return self._last
        raw = self._raw()
        return Progress(raw.done, raw.total)

    def _raw(self) -> Any:
        raw = self._control.ffi.new("struct by_compare_progress *")
        self._control.lib.by_comparer_progress(self._native, raw)
        return raw

    def _start(self, tag: int) -> Any:
        params = self._control.ffi.new(
            "struct by_compare_params *",
            {
                **self._fields,
                "roots": [root.native for root in self._roots],
                "helper": self._helper,
                "tag": tag,
            },
        )
        return self._control.lib.by_comparer_start(params)

    def _cancel(self) -> None:
        self._control.lib.by_comparer_cancel(self._native)

    def _end(self) -> None:
        if self._native is not None:
            self._last = self.progress
            self._control.lib.by_comparer_free(self._native)
            self._native = None
