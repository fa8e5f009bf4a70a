# SPDX-License-Identifier: Apache-2.0
"""What is asked about the image, and done to it, as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.errors import from_errno
from blockyard_tools.io.failure import Failed, reason
from blockyard_tools.io.output import complain
from blockyard_tools.io.report import size_text
from blockyard_tools.io.words import Words, number

if TYPE_CHECKING:
    from blockyard_tools.io.session import Session

__all__ = ["alloc", "flush", "info", "length", "map_", "truncate"]


async def flush(session: Session, arguments: list[str]) -> bool:
    """Bring what was written to stable storage; a failure shows in the exit status."""
    try:
        await session.image.flush()
    except OSError:
        return False
    return True


async def length(session: Session, arguments: list[str]) -> bool:
    """Print the image's length."""
    session.output.line(size_text(session.image.length))
    return True


async def truncate(session: Session, arguments: list[str]) -> bool:
    """Change the image's length."""
    from blockyard.errors import BlockyardError
    from blockyard.request import Preallocation

    words = Words(arguments, "m:")
    mode = "off"
    for _, argument in words:
        mode = argument
        if mode not in ("off", "metadata", "falloc", "full"):
            complain(f"qemu-io: Invalid preallocation mode '{mode}'")
            return False
    text = words.rest[0] if words.rest else ""
    wanted = number(text, shown=arguments[0])
    node = session.image.node
    try:
        await node.driver.check_resize(wanted)
        await session.image.truncate(wanted, prealloc=Preallocation[mode.upper()], exact=False)
    except OSError as error:
        told = from_errno(error.errno or 5, "Could not resize image")
        raise node.driver.truncate_error(wanted, mode, told) from error
    except BlockyardError:
        raise
    return True


async def info(session: Session, arguments: list[str]) -> bool:
    """Print what the image is made of."""
    node = session.image.node
    output = session.output
    output.line(f"format name: {node.type.name}")
    if node.type.kind == "protocol":
        # It is its own protocol, and that has always been told in the same words.
        output.line(f"format name: {node.type.name}")
        if not hasattr(node.options.u, "filename"):
            return False  # Only of files more is known.
    output.line(f"cluster size: {size_text(node.cluster_size)}")
    output.line(f"vm state offset: {size_text(node.driver.machine_state_offset())}")
    known = await node.driver.image_info()
    data = known.get("format-specific", {}).get("data")
    if data:
        from blockyard_tools.tree import tree_lines

        output.line("Format specific information:")
        for line in tree_lines(data):
            output.line(line)
    return True


# -- what is allocated


async def _allocated(session: Session, offset: int, count: int) -> tuple[bool, int]:
    """Whether the image itself decides what begins at ``offset``, and for how many bytes."""
    status = await session.image.block_status(offset, count, layers=1)
    return status.allocated, status.bytes


async def alloc(session: Session, arguments: list[str]) -> bool:
    """Print how much of a range the image itself decides."""
    offset = number(arguments[0])
    count = number(arguments[1]) if len(arguments) > 1 else 512
    count = max(0, min(count, session.image.length - offset))
    at, found = offset, 0
    while at < offset + count:
        try:
            allocated, step = await _allocated(session, at, offset + count - at)
        except OSError as error:
            raise Failed(f"is_allocated failed: {reason(error)}") from error
        found += step if allocated else 0
        at += step
    where = size_text(offset)
    session.output.line(f"{found}/{count} bytes allocated at offset {where}")
    return True


async def map_(session: Session, arguments: list[str]) -> bool:
    """Print the ranges that the image decides, and those that it leaves to others."""
    end, at, begun = session.image.length, 0, 0
    before: bool | None = None
    while at < end:
        try:
            allocated, step = await _allocated(session, at, end - at)
        except OSError as error:
            raise Failed("Failed to get allocation status") from error
        if before is not None and allocated != before:
            _tell_range(session, begun, at, before)
            begun = at
        before = allocated
        at += step
    if before is not None:
        _tell_range(session, begun, end, before)
    return True


def _tell_range(session: Session, start: int, end: int, allocated: bool) -> None:
    size = end - start
    word = "    allocated" if allocated else "not allocated"
    session.output.line(
        f"{size_text(size)} ({size:#x}) bytes {word} at offset {size_text(start)} ({start:#x})"
    )
