# SPDX-License-Identifier: Apache-2.0
"""The order in which QEMU writes the members of an object."""

from __future__ import annotations

from typing import Any

from blockyard.schema.order import dict_order

__all__ = ["ordered"]


def ordered(value: Any) -> Any:
    """``value`` with every object's members in that order."""
    if isinstance(value, dict):
        return {name: ordered(value[name]) for name in dict_order(list(value))}
    if isinstance(value, list):
        return [ordered(item) for item in value]
    return value
