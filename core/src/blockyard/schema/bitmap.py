# SPDX-License-Identifier: Apache-2.0
"""Dirty bitmaps: what the block-dirty-bitmap commands take and tell."""

from __future__ import annotations

from blockyard.schema.declare import Uint32, struct
from blockyard.schema.export import BlockDirtyBitmapOrStr

__all__ = ["BlockDirtyBitmapAdd", "BlockDirtyBitmapMerge", "BlockDirtyBitmapSha256"]


@struct
class BlockDirtyBitmapAdd:
    """A new dirty bitmap.

    node: the node.
    name: its name, up to 1023 bytes.
    granularity: bytes a bit stands for, a power of two from 512 up (the cluster size, but
        4 KiB to 64 KiB; 64 KiB for nodes without clusters).
    persistent: keep it in the image (false).
    disabled: do not record changes yet (false).
    """

    node: str
    name: str
    granularity: Uint32 | None = None
    persistent: bool | None = None
    disabled: bool | None = None


@struct
class BlockDirtyBitmapMerge:
    """Bitmaps to merge into another.

    node: the node of the bitmap to be changed.
    target: its name.
    bitmaps: the sources, by name of the same node's or with their nodes.
    """

    node: str
    target: str
    bitmaps: list[BlockDirtyBitmapOrStr]


@struct
class BlockDirtyBitmapSha256:
    """A bitmap's content as a digest.

    sha256: in hexadecimal.
    """

    sha256: str
