# SPDX-License-Identifier: Apache-2.0
"""The bytes that requests carry: made, compared, shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockyard_tools.io.output import Output

__all__ = ["DEFAULT_PATTERN", "differs", "dump", "filled", "from_file", "room"]

#: What is written where no pattern is given.
DEFAULT_PATTERN = 0xCD
#: Bytes off a page with ``--misalign``.
_OFF = 16
_CHUNK = 1 << 20
_ROW = 16


def room(length: int, *, misaligned: bool = False) -> memoryview:
    """Memory for ``length`` bytes."""
    if misaligned:
        return memoryview(bytearray(length + _OFF))[_OFF:]
    return memoryview(bytearray(length))


def filled(length: int, pattern: int, *, misaligned: bool = False) -> memoryview:
    """``length`` bytes of this value."""
    if pattern == 0 or misaligned:
        memory = room(length, misaligned=misaligned)
        if pattern:
            memory[:] = bytes([pattern]) * length
        return memory
    return memoryview(bytes([pattern]) * length)


def from_file(path: str, length: int, *, misaligned: bool = False) -> memoryview | None:
    """The file's content, over and over, for ``length`` bytes; None if it is empty.

    :raises OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(length)
    if not content:
        return None
    memory = room(length, misaligned=misaligned)
    memory[:] = (content * (length // len(content) + 1))[:length]
    return memory


def differs(memory: memoryview, pattern: int) -> bool:
    """Whether any byte is another than this."""
    wanted = bytes([pattern]) * min(len(memory), _CHUNK)
    for start in range(0, len(memory), _CHUNK):
        part = bytes(memory[start : start + _CHUNK])
        if part != wanted[: len(part)]:
            return True
    return False


def dump(output: Output, memory: memoryview, offset: int) -> None:
    """Print rows of bytes in hexadecimal, and what is readable of them."""
    for start in range(0, len(memory), _ROW):
        row = bytes(memory[start : start + _ROW])
        digits = "".join(f"{byte:02x} " for byte in row)
        shown = "".join(chr(b) if b < 128 and chr(b).isalnum() else "." for b in row)
        output.line(f"{offset + start:08x}:  {digits} {shown}")
