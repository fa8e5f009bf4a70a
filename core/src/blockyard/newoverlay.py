# SPDX-License-Identifier: Apache-2.0
"""New images on a backing file: its name, its format, and the size that it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from blockyard.errors import BlockyardError, InvalidOption, Unsupported
from blockyard.filename import has_protocol, path_combine
from blockyard.permission import ALL, Perm

if TYPE_CHECKING:
    from blockyard.newimage import NewImage
    from blockyard.yard import Yard

__all__ = ["Backing", "settle"]


@attrs.frozen(kw_only=True)
class Backing:
    """What is known of the backing file beyond the new image's options."""

    file: str | None = None
    format: str | None = None
    #: False: it is not looked at, and need not be there.
    opened: bool = True


async def settle(yard: Yard, new: NewImage, size: int | None, backing: Backing) -> None:
    """Add to the new image's options the size and the backing file; refuse what is wrong.

    ``size``: bytes; None: what the options say, or that of the backing file.  A name
    that is relative is seen from the new image.

    :raises BlockyardError: with QEMU's text, for the first thing that is wrong.
    """
    if size is not None:
        if "size" in new.values:
            raise InvalidOption("The image size must be specified only once")
        new.set("size", str(size))
    _set(new, "backing_file", backing.file, "Backing file")
    _set(new, "backing_fmt", backing.format, "Backing format")
    file = new.values.get("backing_file")
    if file is not None:
        _check_name(new, file)
        await _look(yard, new, file, opened=backing.opened)
    if "size" not in new.values:
        raise InvalidOption("Image creation needs a size parameter")


def _set(new: NewImage, option: str, value: str | None, what: str) -> None:
    if value is None:
        return
    if not new.has(option):
        raise Unsupported(f"{what} not supported for file format '{new.driver.name}'")
    new.set(option, value)


def _check_name(new: NewImage, file: str) -> None:
    if not file:
        raise InvalidOption("Expected backing file name, got empty string")
    if file == new.filename:
        raise InvalidOption(
            "Error: Trying to create an image with the same filename as the backing file"
        )


async def _look(yard: Yard, new: NewImage, file: str, *, opened: bool) -> None:
    """Open the backing file for its format and size."""
    fmt = new.values.get("backing_fmt")
    detected = ""
    if opened:
        full = file if has_protocol(file) else path_combine(new.filename, file)
        try:
            image = await yard.open_named(
                full,
                fmt,
                defaults={"read-only": True},
                backing=True,
                perm=Perm.CONSISTENT_READ,
                shared=ALL,
            )
        except BlockyardError as error:
            raise BlockyardError(f"{error}\nCould not open backing image.") from error
        async with image:
            detected = image.node.type.name
            if "size" not in new.values:
                new.set("size", str(image.length))
    if fmt is None:
        hint = f"\nDetected format of {detected}." if detected else ""
        raise InvalidOption(f"Backing file specified without backing format{hint}")
