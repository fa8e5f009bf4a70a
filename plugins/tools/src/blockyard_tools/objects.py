# SPDX-License-Identifier: Apache-2.0
"""``--object``: objects that a program's images name, secrets above all."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blockyard.yard import Yard

__all__ = ["add_objects"]


async def add_objects(yard: Yard, texts: Iterable[str]) -> None:
    """Make objects, each from keyval (``secret,id=sec0,data=123``) or JSON text.

    :raises BlockyardError: with QEMU's text, for the first that cannot be made.
    """
    from blockyard.errors import InvalidOption
    from blockyard.schema.keyvalvisitor import visit_text
    from blockyard.schema.qom import ObjectOptions

    for text in texts:
        options = visit_text(ObjectOptions, text, "qom-type")
        try:
            await yard.objects.add(options)
        except InvalidOption as error:
            if str(error) == "Parameter 'id' expects an identifier":
                raise InvalidOption(
                    f"{error}\nIdentifiers consist of letters, digits, '-', '.', '_', "
                    "starting with a letter."
                ) from None
            raise
