# SPDX-License-Identifier: Apache-2.0
"""The older form of options, ``key=value,key2=value2``: no nesting, texts only.

A comma in a value is doubled; a key that stands alone is "on", or "off" behind ``no``.
``-o`` and ``--image-opts`` take it.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from blockyard.pattern import Pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["list_ok", "parse_legacy", "wants_help"]

_ITEM = Pattern(r"(?P<key>[^=,]*)(?:=(?P<value>(?:[^,]|,,)*))?(?:,|\Z)", re.DOTALL)
_FIRST = Pattern(r"(?P<value>(?:[^,]|,,)*)(?:,|\Z)", re.DOTALL)


def parse_legacy(
    text: str, implied: str | None = None, *, program: str = ""
) -> list[tuple[str, str]]:
    """The pairs in ``text``, in order.

    ``implied`` is the key that the first value may omit.  A key that stands alone is
    told to standard error as deprecated, if ``program`` says who tells it.

    :raises InvalidOption: never; any text is something.
    """
    return [_pair(*item, program) for item in _items(text, implied)]


def _items(text: str, implied: str | None) -> Iterator[tuple[str, str | None]]:
    position = 0
    while position < len(text):
        item = _ITEM.match(text, position)
        assert item is not None
        key, value = item["key"], item["value"]
        if value is None and position == 0 and implied is not None:
            # A name may have commas, doubled.
            item = _FIRST.match(text)
            assert item is not None
            key, value = implied, item["value"]
        position = item.end()
        yield key, None if value is None else value.replace(",,", ",")


def _pair(key: str, value: str | None, program: str) -> tuple[str, str]:
    if value is not None:
        return key, value
    found, meant = (key[2:], "off") if key.startswith("no") else (key, "on")
    if program:
        sys.stdout.flush()
        print(
            f"{program}: warning: short-form boolean option '{key}' deprecated\n"
            f"Please use {found}={meant} instead",
            file=sys.stderr,
            flush=True,
        )
    return found, meant


def wants_help(text: str) -> bool:
    """Whether ``help`` or ``?`` stands in a list of options."""
    return any(key in ("help", "?") and value is None for key, value in _items(text, None))


def list_ok(text: str) -> bool:
    """Whether ``text`` can be one of several lists that are put together with commas.

    It is not empty, and neither begins nor ends with a comma that separates.
    """
    trailing = len(text) - len(text.rstrip(","))
    return bool(text) and not text.startswith(",") and trailing % 2 == 0
