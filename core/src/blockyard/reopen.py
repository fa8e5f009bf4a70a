# SPDX-License-Identifier: Apache-2.0
"""blockdev-reopen: new options for open nodes, several at once, all or none.

What an option of a node becomes, the first that applies: what the command says;
what was said before, where the command only refers to the node; what its parent
has, for nodes defined inside their parent.  What differs then must be something
that can change (QEMU, block.c, reopening).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard.errors import BlockyardError, InvalidOption, from_errno
from blockyard.flags import Flags, resolve
from blockyard.node import Child, ChildSpec, Node
from blockyard.options import COMMON, flatten, nested, subtree, without
from blockyard.permission import Role
from blockyard.refresh import initial, refresh
from blockyard.replace import attach, detach, retarget
from blockyard.topology import reaches, sorted_below
from blockyard.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockyard.graph import Graph

__all__ = ["explicit_options", "reopen_nodes"]

#: Children that a reopen can replace.
_REPLACEABLE = ("file", "backing")


@attrs.define(eq=False)
class _Entry:
    """One node of the command, or below one."""

    node: Node
    #: Flat, as said; children by reference only, or absent.
    explicit: dict[str, Any]
    #: The visited form, children by node-name.
    options: Any
    flags: Flags
    #: What the command says of the replaceable children: name -> node-name or None.
    wanted: dict[str, str | None]


async def reopen_nodes(graph: Graph, options: Sequence[Any]) -> None:
    """Reopen the nodes that ``options`` name, with these options.

    :raises BlockyardError: and nothing has changed.
    """
    queue = _make_queue(graph, options)
    nodes = [entry.node for entry in queue]
    released: list[Node] = []
    async with graph.drained(sorted_below(nodes)):
        await _flush(graph, nodes)
        async with Transaction() as tran:
            was_writable = [node for node in nodes if node.writable]
            for entry in queue:
                await _prepare(graph, entry, released, tran)
            await refresh([*nodes, *released], tran, was_writable=was_writable)
        for entry in queue:
            graph.carrier.set_flags(entry.node)
    for node in released:
        await graph.release(node)


async def _flush(graph: Graph, nodes: list[Node]) -> None:
    for node in nodes:
        if node.writable:
            try:
                await graph.carrier.flush(node)
            except BlockyardError as error:
                number = getattr(error, "errno", None) or 5
                raise from_errno(number, "Error flushing drive") from error


# -- the queue


def _make_queue(graph: Graph, options: Sequence[Any]) -> list[_Entry]:
    entries: dict[Node, _Entry] = {}
    for each in options:
        if each.node_name is None:
            raise InvalidOption("node-name not specified")
        node = graph.find(each.node_name)
        _queue_tree(node, flatten(_dumped(each)), entries)
    return list(entries.values())


def _queue_tree(node: Node, said: dict[str, Any], entries: dict[Node, _Entry]) -> None:
    waiting: list[tuple[Node, dict[str, Any], Flags | None]] = [(node, said, None)]
    while waiting:
        each, flat, parent = waiting.pop()
        if each in entries:
            flat = {**entries[each].explicit, **flat}
        entry = entries[each] = _make_entry(each, flat, parent)
        for child in each.children.values():
            if child.node.inherits_from is each:
                below = _said_of_child(child, flat)
                if below is not None:
                    waiting.append((child.node, below, entry.flags))


def _said_of_child(child: Child, flat: dict[str, Any]) -> dict[str, Any] | None:
    """The new explicit options of a child, or None when it stays out of the reopen."""
    if child.name not in flat:
        return subtree(flat, child.name)
    if flat[child.name] == child.node.name:
        return explicit_options(child.node)
    return None


def explicit_options(node: Node) -> dict[str, Any]:
    """What was said of the node when it was opened, flat, its children left out."""
    flat = flatten(_dumped(node.options))
    for spec in node.type.children:
        flat = without(flat, spec.name)
    return flat


def _make_entry(node: Node, flat: dict[str, Any], parent: Flags | None) -> _Entry:
    explicit, wanted = flat, {}
    for spec in node.type.children:
        if spec.name in explicit:
            wanted[spec.name] = explicit[spec.name]
        explicit = without(explicit, spec.name)
    if explicit.get("driver", node.type.name) != node.type.name:
        raise InvalidOption("Cannot change the option 'driver'")
    options = _visited(node, explicit, wanted)
    role = next((u.role for u in node.parents if isinstance(u, Child)), None)
    flags = resolve(options, parent, role or Role.IMAGE)
    if parent is None and options.discard is None:
        flags = attrs.evolve(flags, discard=node.flags.discard)
    return _Entry(node, explicit, options, flags, wanted)


def _visited(node: Node, explicit: dict[str, Any], wanted: dict[str, str | None]) -> Any:
    from blockyard.schema import visit
    from blockyard.schema.block import BlockdevOptions

    tree = nested({"driver": node.type.name, **explicit})
    for spec in node.type.children:
        value = _reference(node, spec, wanted)
        if value is not None:
            tree[spec.name] = value
    return visit(BlockdevOptions, tree)


def _reference(node: Node, spec: ChildSpec, wanted: dict[str, str | None]) -> Any:
    if spec.many:
        return [c.node.name for n, c in node.children.items() if n.startswith(f"{spec.name}.")]
    child = node.children.get(spec.name)
    return wanted.get(spec.name) or (child.node.name if child else None)


def _dumped(options: Any) -> Any:
    from blockyard.schema import dump

    return dump(options)


# -- one node


async def _prepare(graph: Graph, entry: _Entry, released: list[Node], tran: Transaction) -> None:
    node = entry.node
    entry.flags.check_detect_zeroes()
    if not node.driver.reopen_supported():
        raise BlockyardError(
            f"Block format '{node.type.name}' used by node '{node.name}' "
            "does not support reopening files"
        )
    _check_left_out(entry)
    _check_unchanged(entry)
    _take_flags(entry, tran)
    await node.driver.reopen_prepare(entry.options.u, entry.flags.read_only)
    tran.add(commit=lambda: _commit(entry), abort=node.driver.reopen_abort)
    has_backing = node.type.supports_backing and "backing" in node.children
    if has_backing and "backing" not in entry.wanted:
        raise InvalidOption(f"backing is missing for '{node.name}'")
    for name in ("backing", "file"):
        if name in entry.wanted:
            _replace_child(graph, entry, name, released, tran)


def _commit(entry: _Entry) -> None:
    entry.node.driver.reopen_commit()
    entry.node.options = entry.options
    entry.node.driver.options = entry.options.u


def _take_flags(entry: _Entry, tran: Transaction) -> None:
    node, old = entry.node, entry.node.flags
    was_read_only = node.read_only
    # Whether a node is active is not an option of reopen's.
    new = attrs.evolve(entry.flags, active=node.active, force_share=node.force_share)
    node.flags = new
    node.take_flags(new)

    def undo() -> None:
        node.flags = old
        node.take_flags(old)
        node.read_only = was_read_only

    tran.add(abort=undo)


def _check_left_out(entry: _Entry) -> None:
    ignored = COMMON | {"driver"} | set(entry.node.type.mutable_options)
    for key in explicit_options(entry.node):
        if key not in entry.explicit and key not in ignored:
            raise InvalidOption(f"Option '{key}' cannot be reset to its default value")


def _check_unchanged(entry: _Entry) -> None:
    before = explicit_options(entry.node)
    free = (COMMON - {"node-name", "active"}) | set(entry.node.type.mutable_options)
    for key, value in entry.explicit.items():
        same = before.get(key, _implied(entry.node, key)) == value
        if key not in free and not same:
            raise InvalidOption(f"Cannot change the option '{key}'")
    if entry.flags.force_share and not entry.flags.read_only:
        raise InvalidOption("Cannot change the option 'force-share'")
    for name, value in entry.wanted.items():
        if name not in _REPLACEABLE and value != _present(entry.node, name):
            raise InvalidOption(f"Cannot change the option '{name}'")


def _implied(node: Node, key: str) -> Any:
    """What an option that was not given is known to be."""
    known = {"driver": node.type.name, "node-name": node.name, "active": node.active}
    return known.get(key)


def _present(node: Node, name: str) -> str | None:
    return node.children[name].node.name if name in node.children else None


def _replace_child(
    graph: Graph, entry: _Entry, name: str, released: list[Node], tran: Transaction
) -> None:
    node, wanted = entry.node, entry.wanted[name]
    new = graph.lookup(wanted) if wanted is not None else None
    if new is not None and reaches(new, node):
        raise InvalidOption(
            f"Making '{wanted}' a {name} child of '{node.name}' would create a cycle"
        )
    old = node.children.get(name)
    if (old.node if old else None) is new:
        return
    if old is not None:
        released.append(old.node)
    if old is not None and new is not None:
        retarget(graph, old, new, tran)
    elif old is not None:
        detach(graph, old, tran)
    elif new is not None:
        spec = next(spec for spec in node.type.children if spec.name == name)
        child = Child(name=name, role=node.driver.child_role(spec), parent=node, node=new)
        attach(graph, node, child, tran)
        child.perm, child.shared = initial(child)
