# SPDX-License-Identifier: Apache-2.0
"""Block node options as flat dicts, the form in which reopen compares them.

``{"driver": "raw", "file": {"driver": "file"}}`` is ``{"driver": "raw",
"file.driver": "file"}``: the names are those that errors use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["COMMON", "flatten", "nested", "reported", "subtree", "without"]

#: Options that every node has and that may be left out of a reopen.
COMMON = frozenset(
    {
        "auto-read-only",
        "cache.direct",
        "cache.no-flush",
        "detect-zeroes",
        "discard",
        "node-name",
        "read-only",
    }
)


def flatten(value: Any) -> dict[str, Any]:
    """Nested dicts and lists as one dict with dotted keys; iterative."""
    flat: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, dict | list):
            pairs = list(item.items() if isinstance(item, dict) else enumerate(item))
            waiting += [(f"{path}.{k}" if path else str(k), v) for k, v in reversed(pairs)]
        else:
            flat[path] = item
    return flat


def reported(keys: Iterable[str]) -> list[str]:
    """Option names in the order in which QEMU comes upon them.

    Where several options are wrong, the error names the first; QEMU keeps options in
    a table of 512 places, and walks it.
    """
    return sorted(keys, key=_place)


def _place(key: str) -> int:
    data = key.encode()
    total = 0x238F13AF * len(data)
    total += sum(byte << (index * 5 % 24) for index, byte in enumerate(data))
    return (1103515243 * total + 12345) % (1 << 32) % 512


def subtree(flat: dict[str, Any], name: str) -> dict[str, Any]:
    """The options below ``name.``, without the prefix."""
    prefix = f"{name}."
    return {k[len(prefix) :]: v for k, v in flat.items() if k.startswith(prefix)}


def without(flat: dict[str, Any], name: str) -> dict[str, Any]:
    """Everything but ``name`` and what is below it."""
    return {k: v for k, v in flat.items() if k != name and not k.startswith(f"{name}.")}


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """The reverse of :func:`flatten`, lists becoming lists where all keys are numbers."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return {key: _listed(value) for key, value in tree.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    items = {key: _listed(each) for key, each in value.items()}
    if items and all(key.isdigit() for key in items):
        return [items[key] for key in sorted(items, key=int)]
    return items
