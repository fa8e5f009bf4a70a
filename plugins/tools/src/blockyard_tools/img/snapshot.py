# SPDX-License-Identifier: Apache-2.0
"""``blockyard img snapshot``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.errors import BlockyardError, ImageIOError
from blockyard_tools.img.command import Command, Opt, common, failed
from blockyard_tools.img.session import how_of, one_file, opened, work

if TYPE_CHECKING:
    from blockyard.image import Image
    from blockyard.node import Node
    from blockyard.yard import Yard
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="snapshot",
    summary="List or manipulate snapshots in the image",
    usage="[-f FMT | --image-opts] [-l | -a|-c|-d SNAPSHOT]\n[-U] [-q] [--object OBJDEF] FILE",
    options=(
        *common("format", "image-opts"),
        Opt("list|l", "list the image's snapshots, which is done unless something else is asked"),
        Opt("create|c=", "keep the present content under this name", "SNAPSHOT"),
        Opt("apply|a=", "make the content what it was", "SNAPSHOT"),
        Opt("delete|d=", "forget a snapshot", "SNAPSHOT"),
        *common("force-share", "quiet", "object"),
    ),
    words=(("FILE", "the image's name, or with --image-opts its options"),),
)
_ACTIONS = ("list", "create", "apply", "delete")


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    asked = [each for each in line if each.name in _ACTIONS]
    if len(asked) > 1:
        raise COMMAND.wrong("Cannot mix '-l', '-a', '-c', '-d'")
    action = asked[0].name if asked else "list"
    name = one_file(COMMAND, line)
    snapshot = (asked[0].argument or "") if asked else ""
    how = how_of(COMMAND, line, writable=action != "list")

    async def body(yard: Yard) -> int:
        async with opened(yard, name, how) as image:
            if action == "list":
                await _list(image)
            else:
                await _change(yard, image, action, snapshot)
        return 0

    return work(line, body)


async def _list(image: Image) -> None:
    from blockyard.schema import dump
    from blockyard.snapshots import snapshots_of
    from blockyard_tools.img.describe import snapshot_table

    try:
        found = await snapshots_of(image.node)
    except ImageIOError:
        return
    if found:
        print("Snapshot list:")
        print("\n".join(snapshot_table([dump(each) for each in found])))


async def _change(yard: Yard, image: Image, action: str, name: str) -> None:
    from blockyard.snapshots import apply_snapshot, delete_snapshot, keep_snapshot

    graph, node = yard.graph, image.node
    try:
        if action == "create":
            await keep_snapshot(graph, node, name)
        elif action == "apply":
            await apply_snapshot(graph, node, name)
        elif await _missing(node, name):
            raise failed(f"Could not delete snapshot '{name}': snapshot not found")
        else:
            await delete_snapshot(graph, node, None, name)
    except BlockyardError as error:
        raise failed(f"Could not {action} snapshot '{name}': {error}") from error


async def _missing(node: Node, name: str) -> bool:
    from blockyard.snapshots import find_snapshot

    try:
        return await find_snapshot(node, None, name) is None
    except ImageIOError:
        return True
