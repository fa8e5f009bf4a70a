# SPDX-License-Identifier: Apache-2.0
"""New images: blockdev-create."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import attrs

from blockyard.errors import BlockyardError, InvalidOption, from_errno
from blockyard.permission import ALL, Perm
from blockyard.request import MAX_LENGTH
from blockyard_formats_qcow2 import extension
from blockyard_formats_qcow2.encryption import luks, secret
from blockyard_formats_qcow2.header import (
    Header,
    from_text,
)
from blockyard_formats_qcow2.image import OpenImage, address, aside, failed
from blockyard_formats_qcow2.native import ffi, lib
from blockyard_formats_qcow2.newimage import Plan, plan_for
from blockyard_formats_qcow2.options import resolve
from blockyard_formats_qcow2.reading import Found
from blockyard_formats_qcow2.schema import BlockdevOptionsQcow2

if TYPE_CHECKING:
    from blockyard.graph import Graph
    from blockyard.node import Node

__all__ = ["create"]

_EIO, _EINVAL, _EFBIG = 5, 22, 27
_PREALLOC = {"off": 0, "metadata": 1, "falloc": 2, "full": 3}


async def create(options: Any, yard: Any) -> None:
    """Make an image from BlockdevCreateOptionsQcow2, in a file that exists.

    :raises BlockyardError: with QEMU's text.
    """
    graph = yard.graph
    async with AsyncExitStack() as stack:
        file = await _use(stack, graph, options.file)
        plan = plan_for(options)
        data = None
        if options.data_file is not None:
            data = await _use(stack, graph, options.data_file)
            name = data.node.driver.exact_filename()
            plan = attrs.evolve(plan, extensions=attrs.evolve(plan.extensions, data_file=name))
        await _make(plan, file, data, yard)


async def _use(stack: AsyncExitStack, graph: Graph, reference: Any) -> Any:
    """A root on a node that is named or defined, for as long as the stack lasts."""
    if isinstance(reference, str):
        node = graph.lookup_child(reference)
    else:
        node = await graph.add(reference, monitor_owned=False)
    try:
        root = await graph.attach_root(node, Perm.WRITE | Perm.RESIZE, ALL, growable=True)
    except BaseException:
        await graph.release(node)
        raise
    stack.push_async_callback(graph.detach_root, root)
    return root


async def _make(plan: Plan, file: Any, data: Any, yard: Any) -> None:
    volume, crypto_bytes = None, 0
    pieces: tuple[tuple[int, bytes], ...] = ()
    if plan.encrypt is not None:
        password = secret(yard.objects, plan.encrypt.u.key_secret)
        if str(plan.encrypt.format) == "luks":
            made = await luks().create_luks(plan.encrypt.u, password)
            volume, pieces, crypto_bytes = made.volume, made.pieces, made.length
    try:
        settings = await _laid_out(plan.header, crypto_bytes)
        found = _found(plan, settings, crypto_bytes)
        await _format(file.node, found, settings)
        for offset, piece in pieces:
            await file.access.write(settings.crypto_offset + offset, piece)
        await file.access.flush()
        await _preallocate(plan, found, file, data)
    finally:
        if volume is not None:
            volume.close()


async def _laid_out(header: Header, crypto_bytes: int) -> Any:
    settings = ffi.new(
        "struct by_qcow2_settings *",
        {
            "version": header.version,
            "cluster_bits": header.cluster_bits,
            "refcount_order": header.refcount_order,
            "size": header.size,
            "extended_l2": header.l2_entry_bytes == 16,
            "crypto_bytes": crypto_bytes,
        },
    )
    result = lib.by_qcow2_layout(settings)
    if result == -_EFBIG:
        raise _too_large(header.size)
    if result < 0:
        raise InvalidOption("The image cannot be laid out")
    return settings


def _too_large(size: int) -> BlockyardError:
    if size >= 1 << 63:
        return from_text("Could not resize image: Image size cannot be negative", _EINVAL)
    if size > MAX_LENGTH:
        return from_text(
            f"Could not resize image: offset({size}) exceeds maximum({MAX_LENGTH})", _EIO
        )
    return from_text("Could not resize image: Failed to grow the L1 table: File too large", _EFBIG)


def _found(plan: Plan, settings: Any, crypto_bytes: int) -> Found:
    header = attrs.evolve(
        plan.header,
        l1_offset=settings.l1_offset,
        l1_size=settings.l1_size,
        reftable_offset=settings.reftable_offset,
        reftable_clusters=settings.reftable_clusters,
    )
    crypto = (settings.crypto_offset, crypto_bytes) if crypto_bytes else None
    options = resolve(BlockdevOptionsQcow2(file=""), header, unmap=False)
    extensions = attrs.evolve(plan.extensions, crypto=crypto)
    return Found(header=header, extensions=extensions, settings=options)


async def _format(file: Node, found: Found, settings: Any) -> None:
    extensions = found.extensions
    try:
        header = extension.build(found.header, extensions)
    except BlockyardError as error:
        if extensions.backing_file:
            raise failed(
                error,
                f"Could not assign backing file '{extensions.backing_file}' with format "
                f"'{extensions.backing_format or ''}'",
            ) from error
        raise failed(error, "Could not write qcow2 header") from error
    for name, value in _whole(found).items():
        setattr(settings, name, value)
    result = await aside(lib.by_qcow2_format, address(file), settings, header, len(header))
    if result < 0:
        raise from_errno(result, "Could not write qcow2 header")


def _whole(found: Found) -> dict[str, Any]:
    header = found.header
    return {
        "incompatible": header.incompatible,
        "compatible": header.compatible,
        "autoclear": header.autoclear,
        "compression": header.compression,
        "crypt_method": header.crypt_method,
        "data_file": header.has_data_file,
        "data_file_raw": header.data_file_raw,
    }


async def _preallocate(plan: Plan, found: Found, file: Any, data: Any) -> None:
    """Clusters for the whole disk, if asked for; a data file gets its length in any case."""
    if plan.preallocation == "off" and data is None:
        return
    below = address(file.node)
    children = (below, address(data.node) if data is not None else below, 0)
    image = await OpenImage.open(children, found, read_only=False)
    try:
        await image.explained(
            lib.by_qcow2_preallocate,
            _PREALLOC[plan.preallocation],
            context="Could not resize image",
        )
        await image.call(lib.by_qcow2_settle)
    finally:
        await image.close()
