# SPDX-License-Identifier: Apache-2.0
"""``blockyard img map``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard_tools.img.command import Command, Opt, common, failed
from blockyard_tools.img.session import how_of, one_file, opened, output_of, size_of, work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blockyard.image import Image
    from blockyard.node import Node
    from blockyard.request import BlockStatus
    from blockyard.yard import Yard
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="map",
    summary="Dump image metadata",
    usage="[-f FMT | --image-opts] [--start-offset OFFSET] [--max-length LENGTH]\n"
    "[--output human|json] [-U] [--object OBJDEF] FILE",
    options=(
        *common("format", "image-opts"),
        Opt("start-offset|s=", "begin here, and not where the image does", "OFFSET"),
        Opt("max-length|l=", "tell of so many bytes at most", "LENGTH"),
        *common("output", "force-share", "object"),
    ),
    words=(("FILE", "the image's name, or with --image-opts its options"),),
)


@attrs.frozen(kw_only=True)
class _Extent:
    """A range whose content is of one kind."""

    start: int
    length: int
    data: bool
    zero: bool
    compressed: bool
    #: Where it lies in ``owner``'s file; None where that is not said.
    offset: int | None
    owner: Any
    #: Layers of the backing chain above the one that decides.
    depth: int
    #: Whether some layer decides.
    present: bool

    def follows(self, other: _Extent) -> bool:
        """Whether it goes on where ``other`` ends, and is of the same kind."""
        expected = None if other.offset is None else other.offset + other.length
        return (
            self.start == other.start + other.length
            and attrs.evolve(self, start=0, length=0, offset=expected)
            == attrs.evolve(other, start=0, length=0, offset=expected)
            and self.offset == expected
        )


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    as_json = output_of(COMMAND, line)
    start = size_of("start offset", line.last("start-offset") or "0")
    longest = line.last("max-length")
    limit = None if longest is None else size_of("max length", longest)
    name = one_file(COMMAND, line)
    how = how_of(COMMAND, line)

    async def body(yard: Yard) -> int:
        async with opened(yard, name, how) as image:
            end = image.length if limit is None else min(image.length, start + limit)
            if as_json:
                await _print_json(image, start, end)
            else:
                await _print_lines(image, start, end)
        return 0

    return work(line, body)


async def _extents(image: Image, start: int, end: int) -> AsyncIterator[_Extent]:
    """The image from ``start`` to ``end``; one that is empty is told of as well."""
    layers = _layers(image.node)
    current: _Extent | None = None
    at = start
    while at < end:
        status = await image.block_status(at, end - at)
        found = _extent(at, status, layers)
        at += status.bytes
        if current is not None and found.follows(current):
            current = attrs.evolve(current, length=current.length + found.length)
            continue
        if current is not None:
            yield current
        current = found
    yield current or _Extent(
        start=start,
        length=0,
        data=False,
        zero=False,
        compressed=False,
        offset=None,
        owner=None,
        depth=0,
        present=False,
    )


def _layers(node: Node) -> list[Node]:
    """The node and its backing files; what filters show stands for them."""
    from blockyard.permission import Role

    found: list[Node] = []
    below: Node | None = node
    while below is not None:
        shown = [c.node for c in below.children.values() if c.role & Role.FILTERED]
        if not shown:
            found.append(below)
        backing = below.children.get("backing")
        below = shown[0] if shown else backing.node if backing else None
    return found


def _extent(start: int, status: BlockStatus, layers: list[Node]) -> _Extent:
    from blockyard.request import StatusFlags

    known = status.data or status.zero
    has_offset = bool(status.flags & StatusFlags.OFFSET) and known
    # What lies behind the end of a backing file is the layer's above, and nobody's.
    behind = status.depth > 0 and start >= layers[status.depth].length
    return _Extent(
        start=start,
        length=status.bytes,
        data=status.data,
        zero=status.zero,
        compressed=bool(status.flags & StatusFlags.COMPRESSED),
        offset=status.host_offset if has_offset else None,
        owner=status.owner if has_offset else None,
        depth=status.depth - behind,
        present=status.allocated and not behind,
    )


async def _print_lines(image: Image, start: int, end: int) -> None:
    from blockyard.naming import node_filename

    print(f"{'Offset':<16}{'Length':<16}{'Mapped to':<16}File")
    async for each in _extents(image, start, end):
        if not each.data or each.zero:
            continue
        if each.offset is None or each.compressed:
            raise failed("File contains external, encrypted or compressed clusters.")
        places = (each.start, each.length, each.offset)
        print("".join(f"{_hexadecimal(n):<16}" for n in places) + node_filename(each.owner))


def _hexadecimal(number: int) -> str:
    return f"{number:#x}" if number else "0"


async def _print_json(image: Image, start: int, end: int) -> None:
    lead = "["
    async for each in _extents(image, start, end):
        words = [
            f'"start": {each.start}',
            f'"length": {each.length}',
            f'"depth": {each.depth}',
            *(
                f'"{name}": {str(getattr(each, name)).lower()}'
                for name in ("present", "zero", "data", "compressed")
            ),
        ]
        if each.offset is not None:
            words.append(f'"offset": {each.offset}')
        print(f"{lead}{{ {', '.join(words)}}}", end="")
        lead = ",\n"
    print("]")
