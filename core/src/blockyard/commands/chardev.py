# SPDX-License-Identifier: Apache-2.0
"""chardev-add, -change, -remove, -send-break, and what chardevs there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.chardev.registry import chardevs_of
from blockyard.errors import BlockyardError, InvalidOption
from blockyard.qmp.command import command
from blockyard.schema.chardev import (
    ChardevBackend,
    ChardevBackendInfo,
    ChardevInfo,
    ChardevReturn,
)
from blockyard.schema.declare import struct

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = [
    "chardev_add",
    "chardev_change",
    "chardev_remove",
    "chardev_send_break",
    "query_chardev",
    "query_chardev_backends",
]


@struct
class ChardevAddArguments:
    """What chardev-add and chardev-change take.

    id: the chardev's label.
    backend: what it is to be.
    """

    id: str
    backend: ChardevBackend


@struct
class ChardevIdArguments:
    """What chardev-remove and chardev-send-break take.

    id: the chardev's label.
    """

    id: str


@command("chardev-add", args=ChardevAddArguments, returns=ChardevReturn)
async def chardev_add(yard: Yard, args: ChardevAddArguments) -> ChardevReturn:
    """Add a chardev."""
    chardevs = chardevs_of(yard)
    if chardevs.find(args.id) is not None:
        raise InvalidOption(f"Chardev with id '{args.id}' already exists")
    try:
        made = await chardevs.add(args.id, args.backend.type.value, args.backend.u.data)
    except BlockyardError as error:
        raise BlockyardError(f"Failed to add chardev '{args.id}': {error}") from error
    return ChardevReturn(pty=made.pty)


@command("chardev-change", args=ChardevAddArguments, returns=ChardevReturn)
async def chardev_change(yard: Yard, args: ChardevAddArguments) -> ChardevReturn:
    """Put another chardev in the place of one."""
    made = await chardevs_of(yard).change(args.id, args.backend.type.value, args.backend.u.data)
    return ChardevReturn(pty=made.pty)


@command("chardev-remove", args=ChardevIdArguments)
async def chardev_remove(yard: Yard, args: ChardevIdArguments) -> None:
    """Close a chardev that nobody uses."""
    await chardevs_of(yard).remove(args.id)


@command("chardev-send-break", args=ChardevIdArguments)
async def chardev_send_break(yard: Yard, args: ChardevIdArguments) -> None:
    """Tell a chardev's user of a break, which monitors ignore."""
    chardevs_of(yard).get(args.id)


@command("query-chardev", returns=list[ChardevInfo])
async def query_chardev(yard: Yard, args: None) -> list[ChardevInfo]:
    """The chardevs there are."""
    return [
        ChardevInfo(label=c.label, filename=c.filename, frontend_open=c.user is not None)
        for c in chardevs_of(yard)
    ]


@command("query-chardev-backends", returns=list[ChardevBackendInfo])
async def query_chardev_backends(yard: Yard, args: None) -> list[ChardevBackendInfo]:
    """The kinds of chardev there are."""
    return [ChardevBackendInfo(name=name) for name in yard.registry.names("chardevs")]
