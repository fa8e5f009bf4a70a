# SPDX-License-Identifier: Apache-2.0
"""``read``, ``write`` and ``discard``: one request, waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from blockyard_tools.io import payload
from blockyard_tools.io.failure import Failed, Misused, reason
from blockyard_tools.io.output import complain
from blockyard_tools.io.report import Report
from blockyard_tools.io.words import Words, number, pattern

if TYPE_CHECKING:
    from blockyard_tools.io.session import Session

__all__ = ["MAX_REQUEST", "discard", "read", "write"]

#: Bytes of the largest request: as many whole sectors as 31 bits hold.
MAX_REQUEST = (1 << 31) - 512
_SECTOR = 512


def _aligned(value: int, name: str) -> None:
    if value % _SECTOR:
        raise Failed(f"{value} is not a sector-aligned value for '{name}'")


# -- read


@attrs.define
class _Read:
    machine: bool = False
    quiet: bool = False
    vmstate: bool = False
    show: bool = False
    pattern: int | None = None
    #: The part that is compared with the pattern; None: from the beginning, to the end.
    start: int | None = None
    length: int | None = None


def _read_options(words: Words) -> _Read:
    given = _Read()
    for letter, argument in words:
        match letter:
            case "b":
                given.vmstate = True
            case "C":
                given.machine = True
            case "l":
                given.length = number(argument)
            case "P":
                given.pattern = pattern(argument)
            case "q":
                given.quiet = True
            case "s":
                given.start = number(argument)
            case "v":
                given.show = True
    return given


async def read(session: Session, arguments: list[str]) -> bool:
    """Read a range, compare it with a pattern, show it."""
    words = Words(arguments, "bCl:pP:qrs:v")
    given = _read_options(words)
    offset_text, count_text = words.expect(2)
    offset, count = number(offset_text), number(count_text)
    if count > MAX_REQUEST:
        raise Failed(f"length cannot exceed {MAX_REQUEST}, given {count_text}")
    if given.pattern is None and (given.length is not None or given.start is not None):
        raise Misused
    start = given.start or 0
    length = count - start if given.length is None else given.length
    if length < 0 or start + length > count:
        raise Failed("pattern verification range exceeds end of read data")
    if given.vmstate:
        _aligned(offset, "offset")
        _aligned(count, "count")
    report = Report("read", offset, quiet=given.quiet, machine=given.machine)
    memory = payload.room(count, misaligned=session.misaligned)
    await _load(session, offset, memory, given)
    report.stop()
    good = True
    if given.pattern is not None and payload.differs(memory[start : start + length], given.pattern):
        session.output.line(
            f"Pattern verification failed at offset {offset + start}, {length} bytes"
        )
        good = False
    if given.show and not given.quiet:
        payload.dump(session.output, memory, offset)
    report.tell(session.output, count, count)
    return good


async def _load(session: Session, offset: int, memory: memoryview, given: _Read) -> None:
    try:
        if given.vmstate:
            await session.image.node.driver.load_machine_state(offset, memory)
        else:
            await session.image.read_into(offset, memory)
    except OSError as error:
        raise Failed(f"read failed: {reason(error)}") from error


# -- write


@attrs.define
class _Write:
    machine: bool = False
    quiet: bool = False
    vmstate: bool = False
    compressed: bool = False
    fua: bool = False
    no_fallback: bool = False
    may_unmap: bool = False
    #: A hint that no driver here has a use for.
    registered: bool = False
    zeroes: bool = False
    pattern: int | None = None
    source: str | None = None

    def check(self) -> None:
        """Refuse what does not go together."""
        if self.vmstate and self.zeroes:
            raise Failed("-b and -z cannot be specified at the same time")
        if self.fua and (self.vmstate or self.compressed):
            raise Failed("-f and -b or -c cannot be specified at the same time")
        if self.no_fallback and not self.zeroes:
            raise Failed("-n requires -z to be specified")
        if self.may_unmap and not self.zeroes:
            raise Failed("-u requires -z to be specified")
        if self.zeroes + (self.pattern is not None) + (self.source is not None) > 1:
            raise Failed("Only one of -z, -P, and -s can be specified at the same time")


_WRITE_FLAGS = {
    "b": "vmstate",
    "c": "compressed",
    "C": "machine",
    "f": "fua",
    "n": "no_fallback",
    "q": "quiet",
    "r": "registered",
    "u": "may_unmap",
    "z": "zeroes",
}


async def write(session: Session, arguments: list[str]) -> bool:
    """Write a range: a pattern, a file's content, or zeroes that carry no payload."""
    words = Words(arguments, "bcCfnpP:qrs:uz")
    given = _Write()
    for letter, argument in words:
        if letter == "P":
            given.pattern = pattern(argument)
        elif letter == "s":
            given.source = argument
        elif letter != "p":
            setattr(given, _WRITE_FLAGS[letter], True)
    offset_text, count_text = words.expect(2)
    given.check()
    offset, count = number(offset_text), number(count_text)
    if count > MAX_REQUEST and not given.no_fallback:
        raise Failed(f"length cannot exceed {MAX_REQUEST} without -n, given {count_text}")
    if given.vmstate or given.compressed:
        _aligned(offset, "offset")
        _aligned(count, "count")
    if given.zeroes and given.registered:
        raise Failed("cannot combine zero write with registered I/O buffer")
    memory = None if given.zeroes else _payload(session, count, given)
    report = Report("wrote", offset, quiet=given.quiet, machine=given.machine)
    try:
        await _store(session, offset, count, memory, given)
    except OSError as error:
        raise Failed(f"write failed: {reason(error)}") from error
    report.stop()
    report.tell(session.output, count, count)
    return True


def _payload(session: Session, count: int, given: _Write) -> memoryview:
    if given.source is None:
        value = payload.DEFAULT_PATTERN if given.pattern is None else given.pattern
        return payload.filled(count, value, misaligned=session.misaligned)
    try:
        memory = payload.from_file(given.source, count, misaligned=session.misaligned)
    except OSError as error:
        complain(f"{given.source}: {reason(error)}")
        raise Failed from error
    if memory is None:
        complain(f"{given.source}: file is empty")
        raise Failed
    return memory


async def _store(
    session: Session, offset: int, count: int, memory: memoryview | None, given: _Write
) -> None:
    image = session.image
    if memory is None:
        await image.write_zeroes(
            offset,
            count,
            may_unmap=given.may_unmap,
            no_fallback=given.no_fallback,
            fua=given.fua,
        )
    elif given.vmstate:
        await image.node.driver.save_machine_state(offset, memory)
        if session.writethrough:
            await image.flush()
    else:
        await image.write(offset, memory, fua=given.fua, compressed=given.compressed)


# -- discard


async def discard(session: Session, arguments: list[str]) -> bool:
    """Give a range up."""
    words = Words(arguments, "Cq")
    letters = {letter for letter, _ in words}
    offset_text, count_text = words.expect(2)
    offset, count = number(offset_text), number(count_text)
    if count > MAX_REQUEST:
        raise Failed(f"length cannot exceed {MAX_REQUEST}, given {count_text}")
    report = Report("discard", offset, quiet="q" in letters, machine="C" in letters)
    try:
        await session.image.discard(offset, count)
    except OSError as error:
        raise Failed(f"discard failed: {reason(error)}") from error
    report.stop()
    report.tell(session.output, count, count)
    return True
