# SPDX-License-Identifier: Apache-2.0
"""object-add and object-del."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.errors import Busy
from blockyard.qmp.command import command
from blockyard.qmp.dispatcher import current
from blockyard.schema.declare import struct
from blockyard.schema.qom import ObjectOptions

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["object_add", "object_del"]


@struct
class ObjectDelArguments:
    """What object-del takes.

    id: the object.
    """

    id: str


@command("object-add", args=ObjectOptions)
async def object_add(yard: Yard, args: ObjectOptions) -> None:
    """Make an object."""
    await yard.objects.add(args)


@command("object-del", args=ObjectDelArguments)
async def object_del(yard: Yard, args: ObjectDelArguments) -> None:
    """Delete an object that nothing depends on."""
    found = yard.objects.get(args.id)
    request = current()
    if found.type.name == "monitor-qmp" and request and request.session.name == found.id:
        raise Busy("Cannot delete the current QMP monitor")
    if found.type.name == "main-loop":
        raise Busy(f"Deleting main loop '{args.id}' is not supported")
    await yard.objects.delete(args.id)
