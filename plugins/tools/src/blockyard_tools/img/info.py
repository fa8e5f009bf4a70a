# SPDX-License-Identifier: Apache-2.0
"""``blockyard img info``."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import attrs

from blockyard_tools.img.command import Command, Opt, common, failed
from blockyard_tools.img.session import how_of, one_file, opened, output_of, print_json, work

if TYPE_CHECKING:
    from blockyard.yard import Yard
    from blockyard_tools.opening import How
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="info",
    summary="Display information about the image",
    usage="[-f FMT | --image-opts] [--backing-chain] [-U] [--limits]\n"
    "[--output human|json] [--object OBJDEF] FILE",
    options=(
        *common("format", "image-opts"),
        Opt("backing-chain", "go on with the backing file, its backing file, and so on"),
        *common("cache", "force-share"),
        Opt("limits", "show what requests look like that the image takes"),
        *common("output", "object"),
    ),
    words=(("FILE", "the image's name, or with --image-opts its options"),),
    more="""\
Examples:
  qemu-img info disk.qcow2
  qemu-img info --output json --backing-chain overlay.qcow2""",
)


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    as_json = output_of(COMMAND, line)
    name = one_file(COMMAND, line)
    how = how_of(COMMAND, line, backing=False, contents=False)
    chain, limits = line.has("backing-chain"), line.has("limits")

    async def body(yard: Yard) -> int:
        found = await _collect(yard, name, how, chain=chain)
        if not limits:
            found = [_without_limits(each) for each in found]
        if as_json:
            print_json(found if chain else found[0])
        else:
            from blockyard_tools.img.describe import described

            print("\n\n".join(described(each) for each in found))
        return 0

    return work(line, body)


async def _collect(yard: Yard, name: str, how: How, *, chain: bool) -> list[dict[str, Any]]:
    """QAPI BlockGraphInfo of the image; with ``chain`` of all below it as well."""
    from blockyard.imageinfo import Images
    from blockyard.permission import NONE

    found: list[dict[str, Any]] = []
    seen: set[str | tuple[int, int]] = set()
    while True:
        which = _identity(name)
        if which in seen:
            raise failed(f"Backing file '{name}' creates an infinite loop.")
        seen.add(which)
        async with opened(yard, name, how, perm=NONE) as image:
            info = await Images().tree(image.node)
        found.append(info)
        if not chain or "backing-filename" not in info:
            return found
        if "full-backing-filename" not in info:
            raise failed(f"Could not determine the backing file's name of '{name}'")
        name = info["full-backing-filename"]
        how = attrs.evolve(how, format=info.get("backing-filename-format"), image_opts=False)


def _identity(name: str) -> str | tuple[int, int]:
    """The file itself where the name is a file's: it may have any number of names."""
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return name
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else name


def _without_limits(info: dict[str, Any]) -> dict[str, Any]:
    children = [
        {"name": child["name"], "info": _without_limits(child["info"])}
        for child in info["children"]
    ]
    kept = {name: value for name, value in info.items() if name != "limits"}
    return {**kept, "children": children}
