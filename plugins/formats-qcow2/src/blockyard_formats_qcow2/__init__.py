# SPDX-License-Identifier: Apache-2.0
"""The ``qcow2`` format.

A program opens images with :func:`open_image`, or, in a yard of its own,
with :func:`open_in`.
"""

from typing import TYPE_CHECKING, Any

from blockyard_formats_qcow2.schema import QCOW2

if TYPE_CHECKING:
    from blockyard_formats_qcow2.library import Extent, Qcow2Image, StoredBitmap, open_in
    from blockyard_formats_qcow2.script import BlockingQcow2Image, open_image

__all__ = [
    "QCOW2",
    "BlockingQcow2Image",
    "Extent",
    "Qcow2Image",
    "StoredBitmap",
    "open_image",
    "open_in",
]

_HOMES = {
    **dict.fromkeys(("BlockingQcow2Image", "open_image"), "blockyard_formats_qcow2.script"),
    **dict.fromkeys(
        ("Extent", "Qcow2Image", "StoredBitmap", "open_in"), "blockyard_formats_qcow2.library"
    ),
}


def __getattr__(name: str) -> Any:
    # Imported on use: the daemon imports this package for its declaration alone.
    if name not in _HOMES:
        raise AttributeError(f"module 'blockyard_formats_qcow2' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
