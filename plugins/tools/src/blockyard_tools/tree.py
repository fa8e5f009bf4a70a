# SPDX-License-Identifier: Apache-2.0
"""Objects and lists as indented text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.schema.order import dict_order

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["tree_lines"]


def tree_lines(value: dict[str, Any] | list[Any], depth: int = 1) -> Iterator[str]:
    """A line for each member, a level of indentation for each object or list.

    Dashes in names become spaces; the order is QEMU's.
    """
    if isinstance(value, dict):
        pairs = [(name.replace("-", " "), value[name]) for name in dict_order(list(value))]
    else:
        pairs = [(f"[{index}]", item) for index, item in enumerate(value)]
    indent = "    " * depth
    for name, item in pairs:
        if isinstance(item, dict | list):
            yield f"{indent}{name}:"
            yield from tree_lines(item, depth + 1)
        else:
            yield f"{indent}{name}: {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
