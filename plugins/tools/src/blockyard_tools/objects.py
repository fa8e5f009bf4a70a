# SPDX-License-Identifier: Apache-2.0
"""``--object``: objects that a program's images name, secrets above all."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blockyard.yard import Yard

__all__ = ["add_objects", "answer_question"]


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


def answer_question(text: str) -> bool:
    """Print the object types (``help``) or one's properties (``secret,help``), if asked for.

    :raises BlockyardError: if the text is malformed.
    """
    from blockyard.errors import NotFound, UnknownPlugin
    from blockyard.plugins import default_registry
    from blockyard.schema.help import help_text, list_text
    from blockyard.schema.keyval import parse_with_help

    if text.startswith("{") or ("help" not in text and "?" not in text):
        return False
    values, asked = parse_with_help(text, "qom-type")
    if not asked:
        return False
    registry = default_registry()
    name = values.get("qom-type")
    try:
        options = registry.find("objects", name).options if isinstance(name, str) else None
    except (UnknownPlugin, NotFound):
        options = None
    if options is None:
        print(list_text("List of user creatable objects", registry.names("objects")))
    else:
        print(help_text(options, title=f"{name} options"))
    return True
