# SPDX-License-Identifier: Apache-2.0
"""Names of images that begin with one of our prefixes.

``blkdebug:CONFIG:IMAGE`` opens ``IMAGE`` under rules from the file ``CONFIG``, which may
be empty; ``blkverify:RAW:IMAGE`` compares ``IMAGE`` with the raw copy ``RAW``.
"""

from __future__ import annotations

from typing import Any

from blockyard.declaration import NamedImage
from blockyard.errors import InvalidOption

__all__ = ["parse_blkdebug", "parse_blkverify"]


def parse_blkdebug(name: str) -> dict[str, Any]:
    """The options for ``blkdebug:CONFIG:IMAGE``.

    :raises InvalidOption: if the second colon is missing.
    """
    config, colon, image = name.removeprefix("blkdebug:").partition(":")
    if not colon:
        raise InvalidOption("blkdebug requires both config file and image path")
    options: dict[str, Any] = {"image": NamedImage(image)}
    return {"config": config, **options} if config else options


def parse_blkverify(name: str) -> dict[str, Any]:
    """The options for ``blkverify:RAW:IMAGE``.

    :raises InvalidOption: if the second colon is missing.
    """
    raw, colon, image = name.removeprefix("blkverify:").partition(":")
    if not colon:
        raise InvalidOption("blkverify requires raw copy and original image path")
    return {"raw": NamedImage(raw), "test": NamedImage(image, probe=True)}
