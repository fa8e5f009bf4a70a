# SPDX-License-Identifier: Apache-2.0
"""How much a request moved, and how fast."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockyard_tools.io.output import Output

__all__ = ["Report", "size_text"]

_UNITS = ("EiB", "PiB", "TiB", "GiB", "MiB", "KiB")


def size_text(size: float) -> str:
    """``"64 KiB"``, ``"1.500 KiB"``, ``"512 bytes"``: no decimals where they are zeroes."""
    for index, unit in enumerate(_UNITS):
        scale = 1 << (10 * (len(_UNITS) - index))
        if size >= scale:
            return f"{size / scale:.3f}".removesuffix(".000") + f" {unit}"
    return f"{size:f}".removesuffix(".000000") + " bytes"


class Report:
    """What is told about one request when it has ended; made when it begins."""

    def __init__(self, verb: str, offset: int, *, quiet: bool, machine: bool) -> None:
        """``machine``: in the form that programs read."""
        self._verb = verb
        self._offset = offset
        self._quiet = quiet
        self._machine = machine
        self._begun = time.monotonic()
        self._seconds = 0.0

    @property
    def quiet(self) -> bool:
        """Whether nothing is told."""
        return self._quiet

    def stop(self) -> None:
        """Note that the request has ended."""
        self._seconds = max(time.monotonic() - self._begun, 1e-9)

    def tell(self, output: Output, count: int, total: int, ops: int = 1) -> None:
        """Print it: ``total`` bytes of ``count``, in ``ops`` requests."""
        if self._quiet:
            return
        speed, pace = total / self._seconds, ops / self._seconds
        if self._machine:
            clock = _clock(self._seconds)
            output.line(f"{total},{ops},{clock},{speed:.3f},{pace:.3f}")
            return
        clock = _clock(self._seconds) if self._seconds >= 60 else f"{self._seconds:05.2f} sec"
        output.line(f"{self._verb} {total}/{count} bytes at offset {self._offset}")
        speed_text = f"{size_text(speed)}/sec and {pace:.4f} ops/sec"
        output.line(f"{size_text(total)}, {ops} ops; {clock} ({speed_text})")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes) // 60}:{int(minutes) % 60:02}:{rest:05.2f}"
