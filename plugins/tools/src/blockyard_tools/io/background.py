# SPDX-License-Identifier: Apache-2.0
"""``aio_read`` and its like: requests that run beside the commands.

Each is on its way when its command ends.  What there is to tell of it is printed when
it has ended, and no command fails by it.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from blockyard.errors import ImageIOError
from blockyard.request import Op, RequestFlags
from blockyard_tools.io import payload
from blockyard_tools.io.failure import Failed, Misused
from blockyard_tools.io.report import Report
from blockyard_tools.io.scattered import lengths
from blockyard_tools.io.words import Words, number, pattern

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockyard_tools.io.output import Output
    from blockyard_tools.io.session import Session

__all__ = ["Background", "aio_discard", "aio_flush", "aio_read", "aio_write"]


class Background:
    """Counts the requests that have not ended."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._running = 0
        self._idle: anyio.Event | None = None

    def begin(self, ended: Callable[[int], None]) -> Callable[[int], None]:
        """A request begins; answers what its end, with a result, has to call."""
        self._running += 1

        def wrapped(result: int) -> None:
            self._running -= 1
            ended(result)
            if not self._running and self._idle is not None:
                self._idle.set()

        return wrapped

    async def idle(self) -> None:
        """Wait until no request runs."""
        while self._running:
            self._idle = anyio.Event()
            await self._idle.wait()
            self._idle = None


def _start(
    session: Session, ended: Callable[[int], None], op: Op, *rest: Any, flags: int = 0
) -> None:
    done = session.background.begin(ended)
    try:
        session.image.root.access.start(done, op, *rest, flags=flags)
    except ImageIOError as error:
        # It never began: its end is now.
        done(-(error.errno or 5))


async def aio_read(session: Session, arguments: list[str]) -> bool:
    """Begin to read a range."""
    words = Words(arguments, "CP:iqrv")
    letters, wanted = set(), None
    for letter, argument in words:
        letters.add(letter)
        if letter == "P":
            wanted = pattern(argument)
        if letter == "i":
            session.output.line("injecting invalid read request")
            return True
    if len(words.rest) < 2:
        raise Misused
    offset, sizes = number(words.rest[0]), lengths(words.rest[1:])
    memory = payload.room(sum(sizes), misaligned=session.misaligned)
    report = Report("read", offset, quiet="q" in letters, machine="C" in letters)
    ended = partial(_read_ended, session.output, report, offset, memory, wanted, "v" in letters)
    access = session.image.root.access
    _start(session, ended, Op.READ, offset, len(memory), access.pin(memory, writable=True))
    return True


def _read_ended(
    output: Output,
    report: Report,
    offset: int,
    memory: memoryview,
    wanted: int | None,
    show: bool,
    result: int,
) -> None:
    report.stop()
    if result < 0:
        output.line(f"readv failed: {os.strerror(-result)}")
        return
    if wanted is not None and payload.differs(memory, wanted):
        output.line(f"Pattern verification failed at offset {offset}, {len(memory)} bytes")
    if show and not report.quiet:
        payload.dump(output, memory, offset)
    report.tell(output, len(memory), len(memory))


async def aio_write(session: Session, arguments: list[str]) -> bool:
    """Begin to write a range."""
    words = Words(arguments, "CfiP:qruz")
    letters, value = set(), payload.DEFAULT_PATTERN
    for letter, argument in words:
        letters.add(letter)
        if letter == "P":
            value = pattern(argument)
        if letter == "i":
            session.output.line("injecting invalid write request")
            return True
    if len(words.rest) < 2:
        raise Misused
    _check(letters, words.rest)
    offset = number(words.rest[0])
    report = Report("wrote", offset, quiet="q" in letters, machine="C" in letters)
    flags = RequestFlags.FUA if "f" in letters else RequestFlags(0)
    if "z" in letters:
        count = number(words.rest[1])
        flags |= RequestFlags.MAY_UNMAP if "u" in letters else RequestFlags(0)
        ended = partial(_write_ended, session.output, report, count)
        _start(session, ended, Op.WRITE_ZEROES, offset, count, flags=flags)
        return True
    memory = payload.filled(sum(lengths(words.rest[1:])), value, misaligned=session.misaligned)
    ended = partial(_write_ended, session.output, report, len(memory))
    pinned = session.image.root.access.pin(memory, writable=False)
    _start(session, ended, Op.WRITE, offset, len(memory), pinned, flags=flags)
    return True


def _check(letters: set[str], rest: list[str]) -> None:
    if "z" in letters and len(rest) != 2:
        raise Failed("-z supports only a single length parameter")
    if "u" in letters and "z" not in letters:
        raise Failed("-u requires -z to be specified")
    if {"z", "r"} <= letters:
        raise Failed("cannot combine zero write with registered I/O buffer")


def _write_ended(output: Output, report: Report, count: int, result: int) -> None:
    report.stop()
    if result < 0:
        output.line(f"aio_write failed: {os.strerror(-result)}")
        return
    report.tell(output, count, count)


async def aio_discard(session: Session, arguments: list[str]) -> bool:
    """Begin to give a range up."""
    words = Words(arguments, "Cq")
    letters = {letter for letter, _ in words}
    offset_text, count_text = words.expect(2)
    offset, count = number(offset_text), number(count_text)
    report = Report("discarded ", offset, quiet="q" in letters, machine="C" in letters)
    ended = partial(_discard_ended, session.output, report, count)
    _start(session, ended, Op.DISCARD, offset, count)
    return True


def _discard_ended(output: Output, report: Report, count: int, result: int) -> None:
    report.stop()
    if result < 0:
        output.line(f"aio_discard failed: {os.strerror(-result)}")
        return
    report.tell(output, count, count)


async def aio_flush(session: Session, arguments: list[str]) -> bool:
    """Wait until every request that was begun has ended."""
    await session.background.idle()
    return True
