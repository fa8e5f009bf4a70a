# SPDX-License-Identifier: Apache-2.0
"""``blockyard img commit``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import attrs

from blockyard.errors import BlockyardError, ImageIOError
from blockyard_tools.img.command import Command, Opt, common, failed
from blockyard_tools.img.copying import copied, rate_of
from blockyard_tools.img.session import how_of, one_file, opened, work
from blockyard_tools.opening import How
from blockyard_tools.progress import Meter

if TYPE_CHECKING:
    from blockyard.image import Image
    from blockyard.node import Node
    from blockyard.yard import Yard
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="commit",
    summary="Commit an image to its backing file",
    usage="[-f FMT | --image-opts] [-t CACHE_MODE] [-b BASE_IMG]\n"
    "[-d] [-r RATE] [-p] [-q] [--object OBJDEF] FILE",
    options=(
        *common("format", "image-opts", "cache"),
        Opt("drop|d", "leave FILE as it is, because it is not needed any more"),
        Opt(
            "base|b=",
            "commit to this image of the backing chain, and not to the next; what lies between "
            "is of no use afterwards, and FILE stays as it is",
            "BASE_IMG",
        ),
        Opt("rate-limit|r=", "copy at most so many bytes in a second", "RATE", "rate="),
        *common("progress", "quiet", "object"),
    ),
    words=(("FILE", "the image whose changes are written to its backing file"),),
    more="""\
Example:
  qemu-img commit -p overlay.qcow2""",
)


@attrs.frozen(kw_only=True)
class _Base:
    """The image that is committed to, and how many layers lie above it."""

    name: str
    format: str
    layers: int


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    given = [each.argument for each in line if each.name in ("rate-limit", "rate")]
    rate = rate_of(given[-1] if given else None)
    name = one_file(COMMAND, line)
    how = how_of(COMMAND, line)

    async def body(yard: Yard) -> int:
        meter = Meter(on=line.has("progress") and not line.has("quiet"))
        try:
            base = await _find_base(yard, name, how, line.last("base"))
            drop = line.has("drop") or line.last("base") is not None
            async with AsyncExitStack() as stack:
                await _commit(yard, stack, meter, name, how, base, rate=rate, drop=drop)
            meter.finish()
        finally:
            meter.end()
        if not line.has("quiet"):
            print("Image committed.")
        return 0

    return work(line, body)


async def _find_base(yard: Yard, name: str, how: How, wanted: str | None) -> _Base:
    """Look at the chain as it is."""
    from blockyard.changes.topology import backing_below
    from blockyard.imagename import absolute
    from blockyard.naming import node_filename

    async with opened(yard, name, attrs.evolve(how, writable=False)) as image:
        chain = list(backing_below(image.node))
        if wanted is not None:
            number = _position(image.node, chain, wanted)
            if number is None:
                raise failed(f"Did not find '{wanted}' in the backing chain of '{name}'")
        elif not chain:
            raise failed("Image does not have a backing file")
        else:
            number = 0
        base, above = chain[number], [image.node, *chain][number]
        recorded = absolute(above, above.backing_file)
        return _Base(name=recorded or node_filename(base), format=base.type.name, layers=number + 1)


def _position(top: Node, chain: list[Node], wanted: str) -> int | None:
    """Which of the backing files is called so, as seen from the image that names it."""
    import os

    from blockyard.filename import has_protocol, path_combine
    from blockyard.naming import node_filename

    for number, (above, node) in enumerate(zip([top, *chain], chain, strict=False)):
        filename = node_filename(node)
        if has_protocol(wanted):
            found = wanted in (above.backing_file, filename)
        else:
            seen = path_combine(node_filename(above), wanted)
            found = bool(wanted) and os.path.realpath(seen) == os.path.realpath(filename)
        if found:
            return number
    return None


async def _commit(
    yard: Yard,
    stack: AsyncExitStack,
    meter: Meter,
    name: str,
    how: How,
    base: _Base,
    *,
    rate: int,
    drop: bool,
) -> None:
    from blockyard.copying import KNOWN_ZEROES, Copier, CopyFailed, Range

    # The layers above the base are read, not through it: it is opened by itself, for
    # writing, and what they do not decide is not asked.
    alone = base.layers == 1
    above = attrs.evolve(how, writable=alone and not drop, backing=not alone, force_share=not alone)
    source = await stack.enter_async_context(opened(yard, name, above))
    below = How(format=base.format, writable=True, cache=how.cache, options={"discard": "unmap"})
    target = await stack.enter_async_context(opened(yard, base.name, below))
    if target.length < source.length:
        await target.resize(source.length)
    copier = Copier(
        yard.control,
        target.root,
        [Range(source=source.root, bytes=source.length, layers=base.layers)],
        sparse=KNOWN_ZEROES,
        rate=rate,
    )
    try:
        await copied(copier, meter)
        await target.flush()
    except (CopyFailed, ImageIOError) as error:
        raise failed(f"Block job failed: {error}") from error
    if not drop:
        await _empty(yard, source, name)


async def _empty(yard: Yard, source: Image, name: str) -> None:
    try:
        async with yard.graph.writer, yard.graph.drained([source.node]):
            await source.node.driver.make_empty()
    except BlockyardError as error:
        raise failed(f"Could not empty {name}: {error}") from error
