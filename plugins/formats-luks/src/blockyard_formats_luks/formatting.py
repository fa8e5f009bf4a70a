# SPDX-License-Identifier: Apache-2.0
"""Images made: blockdev-create, and how large they would be."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from blockyard.errors import BlockyardError, ImageIOError, InvalidOption
from blockyard.imagework import Measure
from blockyard.permission import ALL, Perm
from blockyard.request import Preallocation
from blockyard.schema import visit
from blockyard.schema.crypto import QCryptoBlockCreateOptionsLUKS
from blockyard_formats_luks.create import create_luks, header_length
from blockyard_formats_luks.storage import storage_through
from blockyard_objects_secret.lookup import passphrase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from blockyard.graph import Graph
    from blockyard.node import Node
    from blockyard.root import Root
    from blockyard.yard import Yard
    from blockyard_formats_luks.schema import BlockdevCreateOptionsLUKS

__all__ = ["format_image", "measure_image"]

_MAX_SIZE = (1 << 63) - 1
_TOO_LARGE = "The requested file size is too large"
_NO_SECRET = "Parameter 'key-secret' is required for cipher"  # noqa: S105  a sentence
#: Members of the create options that say where the image goes, and not what it is.
_OF_FILES = ("file", "header", "size", "preallocation")


async def format_image(options: BlockdevCreateOptionsLUKS, yard: Yard) -> None:
    """blockdev-create.

    :raises BlockyardError: with QEMU's text.
    """
    if options.header is None and options.file is None:
        raise InvalidOption("Either the parameter 'header' or 'file' must be specified")
    prealloc = Preallocation[(options.preallocation or "off").upper()]
    if prealloc is not Preallocation.OFF and options.file is None:
        raise InvalidOption(
            "Parameter 'preallocation' requires 'file' to be specified for formatting LUKS disk"
        )
    if options.header is None:
        if prealloc is Preallocation.METADATA:
            prealloc = Preallocation.OFF
        await _write_header(yard, options.file, options, options.size, prealloc)
        return
    await _write_header(yard, options.header, options, None, Preallocation.OFF)
    if options.file is not None:
        await _size_payload(yard, options.file, options.size, prealloc)


async def _write_header(
    yard: Yard,
    reference: Any,
    options: BlockdevCreateOptionsLUKS,
    size: int | None,
    prealloc: Preallocation,
) -> None:
    """Header and ``size`` bytes of data into a node; without a size it is a detached one."""
    async with _root(yard.graph, reference) as (node, root):
        if options.key_secret is None:
            raise InvalidOption(_NO_SECRET)
        word = passphrase(yard.objects, options.key_secret)
        created = await create_luks(options, word, detached=size is None)
        created.volume.close()
        await _truncate(node, root, created.length, size or 0, prealloc)
        storage = storage_through(root.access, node)
        for offset, data in created.pieces:
            await storage.write(offset, data)
        await storage.flush()


async def _size_payload(yard: Yard, reference: Any, size: int, prealloc: Preallocation) -> None:
    async with _root(yard.graph, reference) as (node, root):
        await _truncate(node, root, 0, size, prealloc)


async def _truncate(
    node: Node, root: Root, before: int, size: int, prealloc: Preallocation
) -> None:
    if size > _MAX_SIZE - before:
        raise InvalidOption(_TOO_LARGE)
    length = before + size
    try:
        await node.driver.check_resize(length)
        await root.access.truncate(length, prealloc=prealloc)
    except ImageIOError as error:
        if error.errno == errno.EFBIG:
            raise InvalidOption(_TOO_LARGE) from error
        raise _explained(node, length, prealloc, error) from error


def _explained(
    node: Node, length: int, prealloc: Preallocation, error: ImageIOError
) -> BlockyardError:
    return node.driver.truncate_error(length, prealloc.name.lower(), error)


@asynccontextmanager
async def _root(graph: Graph, reference: Any) -> AsyncIterator[tuple[Node, Root]]:
    """A node by its name or definition, to be written and resized."""
    if isinstance(reference, str):
        node = graph.lookup_child(reference)
    else:
        node = await graph.add(reference, monitor_owned=False)
    try:
        root = await graph.attach_root(node, Perm.WRITE | Perm.RESIZE, ALL)
    except BaseException:
        await graph.release(node)
        raise
    try:
        yield node, root
    finally:
        await graph.detach_root(root)


def measure_image(options: Mapping[str, Any], source: Node | None) -> Measure:
    """How large an image with these create options would be.

    :raises InvalidOption: for options that make none.
    """
    size = source.length if source is not None else int(options.get("size", 0))
    rest = {name: value for name, value in options.items() if name not in _OF_FILES}
    wanted = visit(QCryptoBlockCreateOptionsLUKS, rest)
    if wanted.key_secret is None:
        raise InvalidOption(_NO_SECRET)
    total = header_length(wanted) + size
    return Measure(required=total, fully_allocated=total)
