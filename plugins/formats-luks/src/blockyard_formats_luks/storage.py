# SPDX-License-Identifier: Apache-2.0
"""Where headers are read from and written to."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from blockyard.errors import ImageIOError, from_errno

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from blockyard.access import Access
    from blockyard.carrier import Carrier
    from blockyard.node import Node

__all__ = ["Storage", "storage_in", "storage_through"]


@attrs.frozen
class Storage:
    """A file, or the part of one that begins with the header."""

    #: ``read(offset, length)``; fewer bytes at the end of the file.
    read: Callable[[int, int], Awaitable[bytes]]
    write: Callable[[int, bytes], Awaitable[None]]
    #: Brings what was written to stable storage.
    flush: Callable[[], Awaitable[None]]


@asynccontextmanager
async def storage_in(carrier: Carrier, node: Node) -> AsyncIterator[Storage]:
    """A node below the caller's own, in drained sections too."""
    root = carrier.create_root(node)
    carrier.set_root_rights(root, writable=not node.read_only, growable=False)
    try:
        yield storage_through(carrier.access(root, inner=True), node)
    finally:
        await carrier.free_root(root)


def storage_through(access: Access, node: Node) -> Storage:
    """What a root on ``node`` gives access to; errors say that a header was the matter."""

    async def read(offset: int, length: int) -> bytes:
        length = max(0, min(length, node.length - offset))
        try:
            return await access.read(offset, length) if length else b""
        except ImageIOError as error:
            raise from_errno(error.errno or 5, "Could not read encryption header") from error

    async def write(offset: int, data: bytes) -> None:
        try:
            await access.write(offset, data)
        except ImageIOError as error:
            raise from_errno(error.errno or 5, "Could not write encryption header") from error

    return Storage(read, write, access.flush)
