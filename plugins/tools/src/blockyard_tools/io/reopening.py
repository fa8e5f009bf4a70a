# SPDX-License-Identifier: Apache-2.0
"""``reopen``: other options for the image that is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.permission import Perm
from blockyard_tools.io.failure import Misused
from blockyard_tools.io.output import complain
from blockyard_tools.io.words import Words
from blockyard_tools.opening import CACHE_MODES

if TYPE_CHECKING:
    from blockyard_tools.io.session import Session

__all__ = ["reopen"]

_WRITES = Perm.WRITE | Perm.WRITE_UNCHANGED


def _refuse(text: str) -> bool:
    complain(f"qemu-io: {text}")
    return False


async def reopen(session: Session, arguments: list[str]) -> bool:
    """Change options, and keep those that are not mentioned."""
    from blockyard.schema.legacy import parse_legacy

    words = Words(arguments, "c:o:rw")
    options: dict[str, Any] = {}
    cache: str | None = None
    read_only: bool | None = None
    for letter, argument in words:
        if letter == "c":
            if argument not in CACHE_MODES:
                return _refuse(f"Invalid cache option: {argument}")
            cache = argument
        elif letter == "o":
            options.update(parse_legacy(argument))
        elif read_only is not None:
            return _refuse("Only one -r/-w option may be given")
        else:
            read_only = letter == "r"
    if words.rest:
        raise Misused
    if read_only is not None and "read-only" in options:
        return _refuse("Cannot set both -r/-w and 'read-only'")
    if cache is not None and {"cache.direct", "cache.no-flush"} & options.keys():
        return _refuse("Cannot set both -c and the cache options")
    await _apply(session, options, cache, read_only)
    return True


async def _apply(
    session: Session, options: dict[str, Any], cache: str | None, read_only: bool | None
) -> None:
    image, graph = session.image, session.yard.graph
    if read_only is not None:
        options["read-only"] = read_only
    if cache is not None:
        direct, no_flush, writeback = CACHE_MODES[cache]
        options |= {"cache.direct": direct, "cache.no-flush": no_flush}
        graph.carrier.set_root_writethrough(image.root.native, not writeback)
    if read_only:
        root = image.root
        await graph.set_root_permissions(root, root.perm & ~_WRITES, root.shared)
    await graph.change_options(image.node, options)
