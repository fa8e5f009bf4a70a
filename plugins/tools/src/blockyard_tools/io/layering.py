# SPDX-License-Identifier: Apache-2.0
"""What lies over an image that is open: a temporary overlay, copy-on-read."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockyard.image import Image
    from blockyard.yard import Yard

__all__ = ["add_copy_on_read", "add_overlay"]

#: Where temporary overlays lie unless TMPDIR says otherwise; they may grow large.
_FOLDER = "/var/tmp"  # noqa: S108


async def add_overlay(yard: Yard, image: Image, *, writable: bool) -> Image:
    """The image as it is, with writes kept in an overlay that is gone at the end.

    ``image`` is closed.

    :raises BlockyardError: if the overlay cannot be made; ``image`` is closed then as well.
    """
    try:
        made, path = tempfile.mkstemp(prefix="vl.", dir=os.environ.get("TMPDIR") or _FOLDER)
        os.close(made)
        try:
            await _format(yard, path, image.length)
            return await yard.open(
                {
                    "driver": "qcow2",
                    "file": {"driver": "file", "filename": path},
                    "backing": image.node.name,
                    "read-only": not writable,
                }
            )
        finally:
            os.unlink(path)
    finally:
        await image.close()


async def add_copy_on_read(yard: Yard, image: Image) -> Image:
    """The image with what is read from its backing file copied into it.

    ``image`` is closed.

    :raises BlockyardError: if no installed driver does that; ``image`` is closed then as well.
    """
    node = image.node
    # Two users that both write would be in each other's way.
    node.holders += 1
    try:
        await image.close()
        return await yard.open({"driver": "copy-on-read", "file": node.name})
    finally:
        await yard.graph.let_go(node)


async def _format(yard: Yard, path: str, length: int) -> None:
    """Make the overlay's image."""
    from blockyard.entrypoints import implementation
    from blockyard.schema import visit
    from blockyard.schema.block import BlockdevCreateOptions

    options = visit(
        BlockdevCreateOptions,
        {"driver": "qcow2", "file": {"driver": "file", "filename": path}, "size": length},
    )
    await implementation(yard.registry.driver("qcow2")).create(options.u, yard)
