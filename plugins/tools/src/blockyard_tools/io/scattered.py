# SPDX-License-Identifier: Apache-2.0
"""``readv`` and ``writev``: one request over several pieces of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard_tools.io import payload
from blockyard_tools.io.failure import Failed, Misused, reason
from blockyard_tools.io.report import Report
from blockyard_tools.io.transfer import MAX_REQUEST
from blockyard_tools.io.words import Words, number, pattern

if TYPE_CHECKING:
    from blockyard_tools.io.session import Session

__all__ = ["lengths", "pieces", "readv", "writev"]


def lengths(texts: list[str]) -> list[int]:
    """The lengths of the pieces; at least one.

    :raises Failed: if one is none, or together they are too long.
    """
    found: list[int] = []
    for text in texts:
        length = number(text)
        if length > MAX_REQUEST:
            raise Failed(f"Argument '{text}' exceeds maximum size {MAX_REQUEST}")
        if sum(found) > MAX_REQUEST - length:
            raise Failed(f"The total number of bytes exceed the maximum size {MAX_REQUEST}")
        found.append(length)
    return found


def pieces(memory: memoryview, sizes: list[int]) -> list[memoryview]:
    """``memory``, cut; the pieces have these lengths."""
    cut, at = [], 0
    for size in sizes:
        cut.append(memory[at : at + size])
        at += size
    return cut


async def readv(session: Session, arguments: list[str]) -> bool:
    """Read a range into several pieces of memory."""
    words = Words(arguments, "CP:qrv")
    letters, wanted = set(), None
    for letter, argument in words:
        letters.add(letter)
        if letter == "P":
            wanted = pattern(argument)
    if len(words.rest) < 2:
        raise Misused
    offset, sizes = number(words.rest[0]), lengths(words.rest[1:])
    report = Report("read", offset, quiet="q" in letters, machine="C" in letters)
    memory = payload.room(sum(sizes), misaligned=session.misaligned)
    try:
        await session.image.readv(offset, pieces(memory, sizes))
    except OSError as error:
        raise Failed(f"readv failed: {reason(error)}") from error
    report.stop()
    good = wanted is None or not payload.differs(memory, wanted)
    if not good:
        text = f"Pattern verification failed at offset {offset}, {len(memory)} bytes"
        session.output.line(text)
    if "v" in letters and not report.quiet:
        payload.dump(session.output, memory, offset)
    report.tell(session.output, len(memory), len(memory))
    return good


async def writev(session: Session, arguments: list[str]) -> bool:
    """Write a range from several pieces of memory."""
    words = Words(arguments, "CfqrP:")
    letters, value = set(), payload.DEFAULT_PATTERN
    for letter, argument in words:
        letters.add(letter)
        if letter == "P":
            value = pattern(argument)
    if len(words.rest) < 2:
        raise Misused
    offset, sizes = number(words.rest[0]), lengths(words.rest[1:])
    memory = payload.filled(sum(sizes), value, misaligned=session.misaligned)
    report = Report("wrote", offset, quiet="q" in letters, machine="C" in letters)
    try:
        await session.image.writev(offset, pieces(memory, sizes), fua="f" in letters)
    except OSError as error:
        raise Failed(f"writev failed: {reason(error)}") from error
    report.stop()
    report.tell(session.output, len(memory), len(memory))
    return True
