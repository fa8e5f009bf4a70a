# SPDX-License-Identifier: Apache-2.0
"""Names of nodes: what opens the same image again.

A node goes by a plain name if opening that name brings the same image: the driver
has one itself, or it is a format on a file whose options change nothing and whose
backing file is the one that the image records.  Otherwise the name is ``json:{...}``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard.changes.options import reported
from blockyard.permission import Role

if TYPE_CHECKING:
    from blockyard.node import Node

__all__ = ["Names", "full_options", "names_of", "node_filename"]

#: Bytes of the longest name; a longer one is cut, and ends with dots.
_LIMIT = 4095


@attrs.frozen
class Names:
    """What a node is called."""

    #: The plain name, if there is one.
    exact: str | None
    #: The options that open the same image again, children inside.
    options: dict[str, Any]
    #: The plain name, or ``json:`` and the options.
    filename: str


def names_of(node: Node, known: dict[Node, Names] | None = None) -> Names:
    """The node's names.  ``known`` keeps those of all nodes below, for further questions."""
    found: dict[Node, Names] = {} if known is None else known
    waiting = [node]
    while waiting:
        each = waiting[-1]
        below = [c.node for c in each.children.values() if c.node not in found]
        if each in found or not below:
            waiting.pop()
            if each not in found:
                found[each] = _names(each, found)
        else:
            waiting += below
    return found[node]


def node_filename(node: Node) -> str:
    """A name that opens the same image: plain if there is one, else ``json:{...}``."""
    return names_of(node).filename


def full_options(node: Node) -> dict[str, Any]:
    """The options that open the same image again, children inside."""
    return names_of(node).options


def _names(node: Node, below: dict[Node, Names]) -> Names:
    overridden = _backing_overridden(node, below)
    strong = node.driver.strong_options()
    exact = node.driver.exact_filename()
    by_name = exact is not None and hasattr(node.options.u, "filename")
    tree = {"driver": node.type.name, **({"filename": exact} if by_name else strong)}
    lists = {spec.name for spec in node.type.children if spec.many}
    for child in node.children.values():
        of, dot, _ = child.name.rpartition(".")
        if dot and of in lists:
            tree.setdefault(of, []).append(below[child.node].options)
        elif overridden or child.name != "backing":
            tree[child.name] = below[child.node].options
    if overridden and "backing" not in node.children:
        tree["backing"] = None
    options = {name: tree[name] for name in reported(tree)}
    if exact is None and not strong and not overridden:
        exact = _name_from_child(node, below)
    return Names(exact, options, exact if exact is not None else _json(options))


def _backing_overridden(node: Node, below: dict[Node, Names]) -> bool:
    """Whether opening the image by its name would bring another backing file."""
    child = node.children.get("backing")
    present = below[child.node].filename if child else ""
    return present != node.auto_backing_file


def _name_from_child(node: Node, below: dict[Node, Names]) -> str | None:
    """A format on a file goes by the file's name."""
    child = next((c for c in node.children.values() if c.role & Role.PRIMARY), None)
    if node.type.kind != "format" or child is None or not child.node.type.is_protocol:
        return None
    return below[child.node].exact


def _json(options: dict[str, Any]) -> str:
    from blockyard.schema.jsontext import dumps

    name = f"json:{dumps(options)}"
    data = name.encode(errors="surrogateescape")
    if len(data) <= _LIMIT:
        return name
    return data[: _LIMIT - 3].decode(errors="ignore") + "..."
