# SPDX-License-Identifier: Apache-2.0
"""Names of images: what has a protocol, and what is relative to what."""

from __future__ import annotations

__all__ = ["has_protocol", "is_absolute", "path_combine"]


def has_protocol(name: str) -> bool:
    """Whether the name begins with a protocol: a colon before the first slash."""
    head, colon, _ = name.partition(":")
    return bool(colon) and "/" not in head


def is_absolute(name: str) -> bool:
    """Whether the name is a path from the root."""
    return name.startswith("/")


def path_combine(base: str, name: str) -> str:
    """``name`` as seen from the image ``base``: it takes the place of its last component.

    A protocol of ``base`` stays, and an absolute ``name`` is the answer itself.
    """
    if is_absolute(name):
        return name
    protocol = base.index(":") + 1 if has_protocol(base) else 0
    return base[: max(protocol, base.rfind("/") + 1)] + name
