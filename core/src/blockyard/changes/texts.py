# SPDX-License-Identifier: Apache-2.0
"""Options that somebody typed: texts, where the schema has numbers and booleans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard.changes.options import flatten, nested
from blockyard.errors import InvalidOption
from blockyard.imagename import visited

if TYPE_CHECKING:
    from blockyard.node import Node

__all__ = ["typed_options"]

#: Booleans among the options that every node has.
_SWITCHES = ("read-only", "auto-read-only", "force-share", "cache.direct", "cache.no-flush")


def typed_options(node: Node, flat: dict[str, Any]) -> dict[str, Any]:
    """``flat``, with the texts that stand for something else in the schema made that.

    What the node's driver does not know stays as it is.

    :raises InvalidOption: with QEMU's text, for texts that mean nothing.
    """
    typed = dict(flat)
    for name in _SWITCHES:
        if isinstance(flat.get(name), str):
            typed[name] = _switch(name, flat[name])
    own = _own_texts(node, flat)
    if own:
        children = {
            spec.name: node.children[spec.name].node.name
            for spec in node.type.children
            if spec.name in node.children
        }
        known = {name: flat[name] for name in flat if name in own or _is_own(node, name)}
        tree = nested({**known, **children, "driver": node.type.name})
        found = flatten(_dumped(visited(tree, node.graph.registry)))
        typed |= {name: found[name] for name in own if name in found}
    return typed


def _switch(name: str, text: str) -> bool:
    if text not in ("on", "off"):
        raise InvalidOption(f"Parameter '{name}' expects 'on' or 'off'")
    return text == "on"


def _own_texts(node: Node, flat: dict[str, Any]) -> set[str]:
    """The driver's own options that are given as texts."""
    return {name for name, value in flat.items() if isinstance(value, str) and _is_own(node, name)}


def _is_own(node: Node, name: str) -> bool:
    declared = node.type.options
    if declared is None:
        return False
    first = name.partition(".")[0]
    if any(first == spec.name for spec in node.type.children):
        return False
    return first.replace("-", "_") in {field.name for field in attrs.fields(declared)}


def _dumped(options: Any) -> Any:
    from blockyard.schema import dump

    return dump(options)
