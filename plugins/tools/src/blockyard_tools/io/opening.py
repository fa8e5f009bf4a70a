# SPDX-License-Identifier: Apache-2.0
"""``open`` and ``close``, and what the command line says of the first image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard.errors import BlockyardError
from blockyard.filename import has_protocol
from blockyard.permission import ALL, Perm
from blockyard_tools.io.failure import Misused
from blockyard_tools.io.output import complain
from blockyard_tools.io.words import Words
from blockyard_tools.opening import CACHE_MODES, How, open_image

if TYPE_CHECKING:
    from blockyard.image import Image
    from blockyard_tools.io.session import Session

__all__ = ["Wishes", "close", "open_", "open_into"]

#: What ``-d`` takes, as the node's option.
_DISCARD = {"ignore": "ignore", "off": "ignore", "unmap": "unmap", "on": "unmap"}
_AIO = ("threads", "native", "io_uring")


@attrs.define
class Wishes:
    """How an image is to be opened, in the letters of the command line and of ``open``."""

    read_only: bool = False
    #: Writes go to a temporary overlay.
    snapshot: bool = False
    copy_on_read: bool = False
    force_share: bool = False
    cache: str = "writeback"
    discard: str = "unmap"
    aio: str | None = None

    def take(self, letter: str, argument: str) -> bool:
        """Note one option; False if its argument means nothing, which was told."""
        match letter:
            case "r":
                self.read_only = True
            case "s":
                self.snapshot = True
            case "C":
                self.copy_on_read = True
            case "U":
                self.force_share = True
            case "n":
                self.cache = "none"
            case "k":
                self.aio = "native"
            case _:
                return self._take_mode(letter, argument)
        return True

    def _take_mode(self, letter: str, argument: str) -> bool:
        name, known = _MODES[letter]
        if argument not in known:
            complain(f"qemu-io: Invalid {name} option: {argument}")
            return False
        setattr(self, name, _DISCARD[argument] if letter == "d" else argument)
        return True


_MODES: dict[str, tuple[str, Any]] = {
    "t": ("cache", CACHE_MODES),
    "d": ("discard", _DISCARD),
    "i": ("aio", _AIO),
}


async def open_into(
    session: Session,
    name: str | None,
    wishes: Wishes,
    options: dict[str, str],
) -> bool:
    """Make the image the session's; False if that failed, which was told.

    ``options`` are the driver's, as texts; without a name they have to say it all.
    """
    if session.current is not None:
        complain("qemu-io: file open already, try 'help close'")
        return False
    given = dict(options)
    if wishes.force_share and given.setdefault("force-share", "on") not in ("on", "yes", "true"):
        complain("qemu-io: -U conflicts with image options")
        return False
    shown = f" device {name}" if name is not None else ""
    try:
        session.current = await _open(session, name, wishes, given)
    except BlockyardError as error:
        complain(f"qemu-io: can't open{shown}: {error.told}")
        return False
    session.writethrough = not CACHE_MODES[wishes.cache][2]
    return True


async def _open(session: Session, name: str | None, wishes: Wishes, given: dict[str, str]) -> Image:
    fmt = given.pop("driver", None)
    defaults: dict[str, Any] = {"discard": wishes.discard}
    if wishes.aio not in (None, "threads") and name is not None and not has_protocol(name):
        defaults["aio" if fmt in ("file", "host_device") else "file.aio"] = wishes.aio
    writable = not wishes.read_only and not wishes.snapshot
    how = How(format=fmt, writable=writable, cache=wishes.cache, options=given, defaults=defaults)
    perm = Perm.CONSISTENT_READ | (Perm.WRITE if writable else Perm(0))
    if wishes.copy_on_read and wishes.read_only:
        raise BlockyardError("Can't use copy-on-read on read-only device")
    image = await open_image(session.yard, name, how, perm=perm, shared=ALL)
    if wishes.snapshot:
        from blockyard_tools.io.layering import add_overlay

        image = await add_overlay(session.yard, image, writable=not wishes.read_only)
    if wishes.copy_on_read:
        from blockyard_tools.io.layering import add_copy_on_read

        image = await add_copy_on_read(session.yard, image)
    return image


async def open_(session: Session, arguments: list[str]) -> bool:
    """Open an image for the commands that follow."""
    from blockyard.schema.legacy import parse_legacy

    words = Words(arguments, "snCro:ki:t:d:U")
    wishes, options = Wishes(), dict[str, str]()
    for letter, argument in words:
        if letter == "o":
            options.update(parse_legacy(argument))
        elif not wishes.take(letter, argument):
            return False
    if len(words.rest) == 1:
        return await open_into(session, words.rest[0], wishes, options)
    if not words.rest and options:
        return await open_into(session, None, wishes, options)
    raise Misused


async def close(session: Session, arguments: list[str]) -> bool:
    """Close the image."""
    await session.leave()
    return True
