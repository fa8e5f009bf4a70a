# SPDX-License-Identifier: Apache-2.0
"""The older form of options, ``key=value,key2=value2``: no nesting, texts only.

A comma in a value is doubled; a key that stands alone is "on", or "off" behind ``no``.
``-o`` and ``--image-opts`` take it.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["parse_legacy", "wants_help"]

_ITEM = re.compile(r"(?P<key>[^=,]*)(?:=(?P<value>(?:[^,]|,,)*))?(?:,|\Z)", re.DOTALL)
_FIRST = re.compile(r"(?P<value>(?:[^,]|,,)*)(?:,|\Z)", re.DOTALL)


def parse_legacy(
    text: str, implied: str | None = None, known: Collection[str] | None = None, program: str = ""
) -> list[tuple[str, str]]:
    """The pairs in ``text``, in order.

    ``implied`` is the key that the first value may omit.  A key that stands alone is
    told to standard error as deprecated, if ``program`` says who tells it; ``known``
    are the keys that there are: ``no`` before one of those is a negation.

    :raises InvalidOption: never; any text is something.
    """
    return [_pair(*item, known, program) for item in _items(text, implied)]


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


def _pair(
    key: str, value: str | None, known: Collection[str] | None, program: str
) -> tuple[str, str]:
    if value is not None:
        return key, value
    found, meant = key, "on"
    if known is not None and key not in known and key.startswith("no") and key[2:] in known:
        found, meant = key[2:], "off"
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
