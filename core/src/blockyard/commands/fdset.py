# SPDX-License-Identifier: Apache-2.0
"""add-fd, remove-fd, query-fdsets: images that the client opens and the daemon uses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blockyard.errors import BlockyardError
from blockyard.fdset import FD_SETS
from blockyard.qmp.command import command
from blockyard.qmp.dispatcher import current
from blockyard.schema.declare import struct
from blockyard.schema.fdset import AddfdInfo, FdsetFdInfo, FdsetInfo

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["add_fd", "query_fdsets", "remove_fd"]


@struct
class AddFdArguments:
    """What add-fd takes.

    fdset-id: the set; a new one if it is left out.
    opaque: a text that query-fdsets shows.
    """

    fdset_id: int | None = None
    opaque: str | None = None


@struct
class RemoveFdArguments:
    """What remove-fd takes.

    fdset-id: the set.
    fd: the descriptor; all of the set if it is left out.
    """

    fdset_id: int
    fd: int | None = None


@command("add-fd", args=AddFdArguments, returns=AddfdInfo)
async def add_fd(yard: Yard, args: AddFdArguments) -> AddfdInfo:
    """Put the descriptor that came with the command into a set, to be opened as /dev/fdset/N."""
    request = current()
    fd = request.take_fd() if request else None
    if fd is None:
        raise BlockyardError("No file descriptor supplied via SCM_RIGHTS")
    try:
        found = FD_SETS.add(fd, args.fdset_id, args.opaque)
    except BlockyardError:
        os.close(fd)
        raise
    return AddfdInfo(fdset_id=found.id, fd=fd)


@command("remove-fd", args=RemoveFdArguments)
async def remove_fd(yard: Yard, args: RemoveFdArguments) -> None:
    """Close a set's descriptors; nodes that have opened them keep what they have."""
    FD_SETS.remove(args.fdset_id, args.fd)


@command("query-fdsets", returns=list[FdsetInfo])
async def query_fdsets(yard: Yard, args: None) -> list[FdsetInfo]:
    """The sets of this process."""
    return [
        FdsetInfo(
            fdset_id=found.id,
            fds=[FdsetFdInfo(fd=m.fd, opaque=m.opaque) for m in reversed(found.members)],
        )
        for found in FD_SETS.query()
    ]
