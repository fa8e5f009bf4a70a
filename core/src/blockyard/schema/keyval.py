# SPDX-License-Identifier: Apache-2.0
"""The command line's ``key=value,...`` form of options.

The form stands for a JSON object whose leaves are all strings: dots in a key
descend, a key part made of digits indexes a list, a comma in a value is doubled.
What the strings mean is the keyval visitor's business.
"""

from __future__ import annotations

import re
from typing import Any

from blockyard.errors import InvalidOption
from blockyard.pattern import Pattern
from blockyard.schema.order import dict_order

__all__ = ["merge", "parse", "parse_with_help"]

_NAME = Pattern(r"(?:__[A-Za-z0-9.-]*_)?[A-Za-z][A-Za-z0-9_-]*")
_INDEX = Pattern(r"[0-9]+")
_STOP = Pattern(r"[=,]|\Z")
_VALUE = Pattern(r"((?:[^,]|,,)*)(?:,|\Z)", re.DOTALL)

#: Longest part of a key, in characters.
_LONGEST = 127
#: An index at or above this one is all the same: no list is that long.
_INDEX_MAX = (1 << 31) - 1
#: Deepest nesting; JSON's limit, so that both forms say the same things.
_DEEPEST = 1024


def parse(text: str, implied: str | None = None) -> dict[str, Any]:
    """The object that ``text`` stands for; ``implied`` is the key that the first value may omit.

    Of a key that is given more than once the last value holds.

    :raises InvalidOption: with QEMU's sentence, or if ``text`` asks for help.
    """
    found, asks_help = parse_with_help(text, implied)
    if asks_help:
        raise InvalidOption("Help is not available for this option")
    return found


def parse_with_help(text: str, implied: str | None = None) -> tuple[dict[str, Any], bool]:
    """Like :func:`parse`, and whether ``help`` or ``?`` stood among the values.

    :raises InvalidOption: with QEMU's sentence.
    """
    root: dict[str, Any] = {}
    asks_help = False
    position = 0
    while position < len(text):
        key_end = _STOP.search(text, position).start()  # type: ignore[union-attr]
        word = text[position:key_end]
        if word and text[key_end : key_end + 1] != "=":
            if word in ("help", "?"):
                asks_help = True
                position = key_end + 1
                continue
            if implied is not None:
                root[implied] = word
                position, implied = key_end + 1, None
                continue
        position = _parse_one(root, text, position, key_end)
        implied = None
    return _listify(root), asks_help


def _parse_one(root: dict[str, Any], text: str, start: int, key_end: int) -> int:
    """Store one ``key=value``; the result is where the next one begins."""
    parts, key_end = _key_parts(text, start, key_end)
    where = root
    for index, part in enumerate(parts[:-1]):
        where = where.setdefault(part, {})
        if not isinstance(where, dict):
            raise _inconsistent(".".join(parts[: index + 1]))
    if text[key_end : key_end + 1] != "=":
        raise InvalidOption(f"Expected '=' after parameter '{text[start:key_end]}'")
    if isinstance(where.get(parts[-1]), dict):
        raise _inconsistent(text[start:key_end])
    value = _VALUE.match(text, key_end + 1)
    assert value is not None
    where[parts[-1]] = value[1].replace(",,", ",")
    return value.end()


def _key_parts(text: str, start: int, key_end: int) -> tuple[list[str], int]:
    """The parts of the key at ``start``, checked, and where it ends."""
    parts: list[str] = []
    position = start
    while True:
        match = _INDEX.match(text, position) if parts else None
        match = match or _NAME.match(text, position)
        end = match.end() if match else position
        if match is None or (end < key_end and text[end] != "."):
            raise InvalidOption(f"Invalid parameter '{text[start:key_end]}'")
        if end - position > _LONGEST:
            kind = "" if position == start and end == key_end else " fragment"
            raise InvalidOption(f"Parameter{kind} '{match[0]}' is too long")
        parts.append(match[0])
        if len(parts) > _DEEPEST:
            raise InvalidOption(f"Parameter '{text[start:key_end]}' is nested too deeply")
        if end >= key_end or text[end] != ".":
            return parts, end
        position = end + 1


def _inconsistent(key: str) -> InvalidOption:
    return InvalidOption(f"Parameters '{key}.*' used inconsistently")


def _listify(root: dict[str, Any]) -> dict[str, Any]:
    """Turn objects whose keys are indexes into lists, the innermost first."""
    order: list[tuple[dict[str, Any] | None, str, dict[str, Any], str]] = []
    todo: list[tuple[dict[str, Any] | None, str, dict[str, Any], str]] = [(None, "", root, "")]
    while todo:
        order.append(todo.pop())
        _, _, node, path = order[-1]
        inner = {key: value for key, value in node.items() if isinstance(value, dict)}
        todo += [(node, key, inner[key], f"{path}{key}.") for key in dict_order(list(inner))]
    for parent, key, node, path in reversed(order):
        made = _listified(node, path)
        if parent is not None:
            parent[key] = made
    return root


def _listified(node: dict[str, Any], path: str) -> Any:
    indexes = {key: min(int(key), _INDEX_MAX) for key in node if _is_index(key)}
    if not indexes:
        return node
    if len(indexes) != len(node):
        raise InvalidOption(f"Parameters '{path}*' used inconsistently")
    found = {index: node[key] for key, index in indexes.items()}
    for index in range(min(len(node) + 1, max(found) + 1)):
        if index not in found:
            raise InvalidOption(f"Parameter '{path}{index}' missing")
    return [found[index] for index in sorted(found)]


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdigit()


def merge(base: dict[str, Any], extra: dict[str, Any], *, path: str = "") -> None:
    """Add ``extra`` to ``base``, both as :func:`parse` makes them.

    Objects are merged, lists joined; of two strings that of ``extra`` holds.

    :raises InvalidOption: if one has a string where the other has not.
    """
    for key, value in extra.items():
        old = base.get(key)
        if old is not None and type(old) is not type(value):
            raise InvalidOption(f"Parameter '{path}{key}' used inconsistently")
        if isinstance(old, dict):
            merge(old, value, path=f"{path}{key}.")
        elif isinstance(old, list):
            old.extend(value)
        else:
            base[key] = value
