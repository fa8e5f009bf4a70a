# SPDX-License-Identifier: Apache-2.0
"""Commands for zoned storage.

No driver here manages zones (storage that does is served as what it is without them), so
that each answers, once its words were understood, that the image has none.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from blockyard_tools.io.failure import Failed
from blockyard_tools.io.scattered import lengths
from blockyard_tools.io.words import Words, number

if TYPE_CHECKING:
    from blockyard_tools.io.session import Session

__all__ = ["append", "close", "finish", "open_", "report", "reset"]


def _without(what: str, arguments: list[str]) -> bool:
    for word in arguments:
        number(word)
    raise Failed(f"zone {what} failed: {os.strerror(errno.ENOTSUP)}")


async def report(session: Session, arguments: list[str]) -> bool:
    """Describe zones."""
    return _without("report", arguments)


async def open_(session: Session, arguments: list[str]) -> bool:
    """Open a range of zones."""
    return _without("open", arguments)


async def close(session: Session, arguments: list[str]) -> bool:
    """Close a range of zones."""
    return _without("close", arguments)


async def finish(session: Session, arguments: list[str]) -> bool:
    """Finish a range of zones."""
    return _without("finish", arguments)


async def reset(session: Session, arguments: list[str]) -> bool:
    """Reset a range of zones."""
    return _without("reset", arguments)


async def append(session: Session, arguments: list[str]) -> bool:
    """Write at the write pointer of a zone."""
    words = Words(arguments, "p")
    for _ in words:
        pass
    number(words.rest[0])
    lengths(words.rest[1:])
    return _without("append", [])
