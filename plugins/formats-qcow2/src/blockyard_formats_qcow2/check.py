# SPDX-License-Identifier: Apache-2.0
"""Checking and repairing: the native half walks, this listens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from blockyard.errors import from_errno
from blockyard.imagework import CheckResult, Fix
from blockyard_formats_qcow2.image import aside
from blockyard_formats_qcow2.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockyard_formats_qcow2.image import OpenImage

__all__ = ["run"]

#: Sentences that are kept of a check that finds more.
_MOST_MESSAGES = 1000
_TEXT_BYTES = 4096
_MILLISECONDS = 200


async def run(image: OpenImage, fix: Fix, tell: Callable[[str], None] | None = None) -> CheckResult:
    """Check an image without requests, and mend what ``fix`` names; ``tell`` hears of all.

    Cancelled, it ends soon, and the image is consistent.

    :raises ImageIOError: if the check cannot go on.
    """
    talk = lib.by_qcow2_talk_new()
    if talk == ffi.NULL:
        raise MemoryError("by_qcow2_talk_new")
    out = ffi.new("struct by_qcow2_check_result *")
    lines: list[str] = []
    try:

        def hear(found: list[str]) -> None:
            lines.extend(found[: _MOST_MESSAGES - len(lines)])
            if tell is not None:
                for line in found:
                    tell(line)

        result = await _both(image, talk, fix, out, hear)
    finally:
        lib.by_qcow2_talk_free(talk)
    if result < 0:
        raise from_errno(result)
    return CheckResult(
        check_errors=out.check_errors,
        corruptions=out.corruptions,
        leaks=out.leaks,
        corruptions_fixed=out.corruptions_fixed,
        leaks_fixed=out.leaks_fixed,
        image_end_offset=out.image_end_offset,
        total_clusters=out.total_clusters,
        allocated_clusters=out.allocated_clusters,
        fragmented_clusters=out.fragmented_clusters,
        compressed_clusters=out.compressed_clusters,
        messages=tuple(lines),
    )


async def _both(
    image: OpenImage, talk: Any, fix: Fix, out: Any, hear: Callable[[list[str]], None]
) -> int:
    """The check on one thread, its reader on another; neither ends before the other."""
    answer: list[int] = []

    async def work() -> None:
        with anyio.CancelScope(shield=True):
            answer.append(await aside(lib.by_qcow2_check, image.native, talk, int(fix), out))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        try:
            await _listen(talk, hear)
        except anyio.get_cancelled_exc_class():
            lib.by_qcow2_talk_cancel(talk)
            with anyio.CancelScope(shield=True):
                await _listen(talk, hear)
            raise
    return answer[0]


async def _listen(talk: Any, hear: Callable[[list[str]], None]) -> None:
    buffer = ffi.new("char[]", _TEXT_BYTES)
    rest = b""
    while (count := await _next_text(talk, buffer)) >= 0:
        *whole, rest = (rest + ffi.buffer(buffer, count)[:]).split(b"\n")
        hear([line.decode(errors="replace") for line in whole if line])


async def _next_text(talk: Any, buffer: Any) -> int:
    return await aside(lib.by_qcow2_talk_read, talk, buffer, _TEXT_BYTES, _MILLISECONDS)
