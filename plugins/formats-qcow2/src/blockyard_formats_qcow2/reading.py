# SPDX-License-Identifier: Apache-2.0
"""An image's whole header, from bytes: fields, options, extensions, in QEMU's order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard_formats_qcow2 import extension
from blockyard_formats_qcow2.header import (
    check_compression,
    check_fields,
    check_size,
    cluster_bytes,
    parse_fields,
)
from blockyard_formats_qcow2.options import check_encryption, resolve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blockyard_formats_qcow2.extension import Extensions
    from blockyard_formats_qcow2.header import Header
    from blockyard_formats_qcow2.options import Settings

__all__ = ["Found", "parse_header", "read_start"]

#: What is read at first: the whole first cluster of most images.
_FIRST = 65536


@attrs.frozen(kw_only=True)
class Found:
    """What an image's first cluster says."""

    header: Header
    extensions: Extensions
    #: What the options come to; None if there were none.
    settings: Settings | None = None


def parse_header(
    data: bytes,
    *,
    writable: bool,
    check: bool = False,
    options: Any = None,
    unmap: bool = False,
) -> Found:
    """The header in ``data``, the first cluster or what the file has of it.

    ``check``: the image is opened to be repaired.  ``options`` (BlockdevOptionsQcow2) and
    ``unmap`` are those of :func:`blockyard_formats_qcow2.options.resolve`.

    :raises BlockyardError: with QEMU's text for the first thing that is wrong.
    """
    header = parse_fields(data)
    check_compression(header)
    extension.refuse_unknown_features(header, data)
    check_fields(header, writable=writable, check=check)
    settings = None if options is None else resolve(options, header, unmap=unmap)
    check_encryption(options and options.encrypt, header)
    extensions = extension.parse(header, data)
    name = extension.backing_name(header, data)
    check_size(header)
    return Found(
        header=header,
        extensions=attrs.evolve(extensions, backing_file=name),
        settings=settings,
    )


async def read_start(read: Callable[[int, int], Awaitable[bytes]], length: int) -> bytes:
    """The first cluster of an image of ``length`` bytes, by ``read(offset, length)``.

    2 MiB at most.
    """
    data = await read(0, min(length, _FIRST))
    wanted = min(length, cluster_bytes(data))
    return data if wanted <= len(data) else await read(0, wanted)
