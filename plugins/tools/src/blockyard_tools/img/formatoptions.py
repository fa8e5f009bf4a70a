# SPDX-License-Identifier: Apache-2.0
"""``-o``: the options of a format, and the lists of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard_tools.img.command import failed

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["joined", "print_help"]


def joined(lists: Sequence[str]) -> tuple[str, bool]:
    """All ``-o`` put together, and whether one of them asks for the list of options.

    :raises ProgramError: if one is malformed.
    """
    from blockyard.schema.legacy import list_ok, wants_help

    for text in lists:
        if not list_ok(text):
            raise failed(f"Invalid option list: {text}")
    whole = ",".join(lists)
    return whole, wants_help(whole)


def print_help(name: str | None, fmt: str) -> int:
    """Print the options by which an image is made; answers the status.

    :raises ProgramError: if there is no such format, or it makes no images.
    """
    import anyio

    from blockyard.creation import described
    from blockyard.errors import BlockyardError
    from blockyard.newimage import NewImage, creation_of, driver_named
    from blockyard.plugins import default_registry

    registry = default_registry()
    try:
        if name is not None:
            new = anyio.run(NewImage.find, registry, name, fmt)
            print(f"Supported options:\n{described(new.options)}")
            return 0
        driver = driver_named(registry, fmt)
    except BlockyardError as error:
        raise failed(str(error)) from error
    creation = creation_of(driver)
    if creation is None:
        raise failed(f"Format driver '{fmt}' does not support image creation")
    print(
        f"Supported {fmt} options:\n{described(creation.options)}\n\n"
        "The protocol level may support further options.\n"
        "Specify the target filename to include those options."
    )
    return 0
