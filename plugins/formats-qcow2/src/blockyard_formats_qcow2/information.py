# SPDX-License-Identifier: Apache-2.0
"""What query-named-block-nodes tells of an image (QAPI ImageInfoSpecificQCow2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.schema import dump
from blockyard_formats_qcow2.header import Compatible, Crypt, Incompatible

if TYPE_CHECKING:
    from blockyard.node import Node
    from blockyard_formats_qcow2.bitmap import ImageBitmaps
    from blockyard_formats_qcow2.image import OpenImage
    from blockyard_formats_qcow2.work import Qcow2Work

__all__ = ["image_info", "specific"]

_COMPRESSION = ("zlib", "zstd")


async def image_info(driver: Qcow2Work) -> dict[str, Any]:
    """The members of ImageInfo that the driver knows."""
    image = driver.image
    state = image.state()
    data = specific(image)
    if stored := stored_bitmaps(driver.stored_bitmaps, driver.node):
        data["bitmaps"] = stored
    if image.header.crypt_method:
        data["encrypt"] = _encryption(driver)
    return {
        "cluster-size": image.header.cluster_size,
        "dirty-flag": bool(state.incompatible & Incompatible.DIRTY),
        "encrypted": True if image.header.crypt_method else None,
        "format-specific": {"type": "qcow2", "data": data},
    }


def specific(image: OpenImage) -> dict[str, Any]:
    """What the header tells, without bitmaps and encryption."""
    header, state = image.header, image.state()
    data: dict[str, Any] = {
        "compat": "0.10" if header.version < 3 else "1.1",
        "refcount-bits": header.refcount_bits,
        "compression-type": _COMPRESSION[header.compression],
    }
    if header.version < 3:
        return data
    data |= {
        "lazy-refcounts": bool(state.compatible & Compatible.LAZY_REFCOUNTS),
        "corrupt": bool(state.incompatible & Incompatible.CORRUPT),
        "extended-l2": header.l2_entry_bytes == 16,
    }
    if header.has_data_file:
        data |= {"data-file-raw": header.data_file_raw}
        if image.extensions.data_file is not None:
            data["data-file"] = image.extensions.data_file
    return data


def stored_bitmaps(stored: ImageBitmaps, node: Node) -> list[dict[str, Any]]:
    """The bitmaps in the image (QAPI Qcow2BitmapInfo)."""
    return [
        {
            "name": entry.name,
            "granularity": entry.granularity,
            "flags": [
                word for word, on in (("in-use", entry.in_use), ("auto", entry.recording)) if on
            ],
        }
        for entry in stored.entries
    ]


def _encryption(driver: Qcow2Work) -> dict[str, Any]:
    if driver.image.header.crypt_method == Crypt.AES:
        return {"format": "aes"}
    return {"format": "luks", **dump(driver.cipher.info)}
