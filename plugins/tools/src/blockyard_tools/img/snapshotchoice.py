# SPDX-License-Identifier: Apache-2.0
"""``-l``: which snapshot of an image is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.errors import BlockyardError
from blockyard_tools.img.command import failed
from blockyard_tools.img.session import announce

if TYPE_CHECKING:
    from blockyard.image import Image

__all__ = ["choose"]

_PREFIX = "snapshot."
_KEYS = ("snapshot.id", "snapshot.name")


async def choose(image: Image, text: str) -> None:
    """Read the image from a snapshot: an id or a name, or ``snapshot.id=...,snapshot.name=...``.

    :raises ProgramError: if the text is malformed.
    :raises BlockyardError: if there is no such snapshot.
    """
    driver = image.node.driver
    if text.startswith(_PREFIX):
        given = _parsed(text)
        await driver.snapshot_show(given.get(_KEYS[0]), given.get(_KEYS[1]))
        return
    ids = [each.id for each in await driver.snapshots()]
    await driver.snapshot_show(*((text, None) if text in ids else (None, text)))


def _parsed(text: str) -> dict[str, str]:
    from blockyard.schema.legacy import parse_legacy

    try:
        given = dict(parse_legacy(text))
        for key in given:
            if key not in _KEYS:
                raise BlockyardError(f"Invalid parameter '{key}'")
    except BlockyardError as error:
        announce(str(error))
        raise failed(f"Failed in parsing snapshot param '{text}'") from error
    return given
