# SPDX-License-Identifier: Apache-2.0
"""Block node options as flat dicts, the form in which reopen compares them.

``{"driver": "raw", "file": {"driver": "file"}}`` is ``{"driver": "raw",
"file.driver": "file"}``: the names are those that errors use.
"""

from __future__ import annotations

from typing import Any

__all__ = ["COMMON", "flatten", "nested", "subtree", "without"]

#: Options that every node has and that may be left out of a reopen.
COMMON = frozenset(
    {
        "active",
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
