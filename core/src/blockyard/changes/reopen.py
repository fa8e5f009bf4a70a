# SPDX-License-Identifier: Apache-2.0
"""blockdev-reopen: new options for open nodes, several at once, all or none.

What an option of a node becomes, the first that applies: what the command says;
what was said before, where the command only refers to the node; what its parent
has, for nodes defined inside their parent.  What differs then must be something
that can change (QEMU, block.c, reopening).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from blockyard.changes.options import COMMON, flatten, nested, reported, subtree, without
from blockyard.changes.refresh import initial, refresh
from blockyard.changes.replace import attach, detach, retarget
from blockyard.changes.texts import typed_options
from blockyard.changes.topology import parent_nodes, reaches, sorted_below
from blockyard.changes.transaction import Transaction
from blockyard.errors import BlockyardError, Busy, InvalidOption, from_errno
from blockyard.flags import Flags, resolve
from blockyard.node import Child, ChildSpec, Node
from blockyard.permission import Role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blockyard.graph import Graph

__all__ = ["change_options", "explicit_options", "reopen_nodes"]

#: Children that a reopen can replace.
_REPLACEABLE = ("file", "backing")


@attrs.define(eq=False, repr=False)
class _Entry:
    """One node of the command, or below one."""

    node: Node
    #: Flat, as said; the children's own options left out.
    explicit: dict[str, Any]
    flags: Flags
    #: What the command says of children, by reference: name -> node-name or None.
    wanted: dict[str, str | None]


async def reopen_nodes(graph: Graph, options: Sequence[Any]) -> None:
    """Reopen the nodes that ``options`` name, with these options.

    :raises BlockyardError: and nothing has changed.
    """
    await _reopen(graph, _make_queue(graph, options))


async def change_options(graph: Graph, node: Node, changes: Mapping[str, Any]) -> None:
    """Reopen a node, with what inherits from it, so that these options change and no others.

    ``changes`` are flat; texts are taken for numbers and booleans as well.

    :raises BlockyardError: and nothing has changed.
    """
    entries: dict[Node, _Entry] = {}
    _queue_tree(node, {**_kept_options(node), **changes}, entries, keep=True)
    await _reopen(graph, list(entries.values()))


async def _reopen(graph: Graph, queue: list[_Entry]) -> None:
    nodes = [entry.node for entry in queue]
    released: list[Node] = []
    async with graph.drained(sorted_below(nodes)):
        await _flush(graph, nodes)
        async with Transaction() as tran:
            was_writable = [node for node in nodes if node.writable]
            for entry in queue:
                await _prepare(graph, entry, released, tran)
            below = [child.node for node in nodes for child in node.children.values()]
            await refresh([*nodes, *released, *below], tran, was_writable=was_writable)
        for entry in queue:
            graph.carrier.set_flags(entry.node)
            await entry.node.driver.reopen_done()
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


def _queue_tree(
    node: Node, said: dict[str, Any], entries: dict[Node, _Entry], *, keep: bool = False
) -> None:
    """``keep``: what is not said stays, in the node and in those below it."""
    waiting: list[tuple[Node, dict[str, Any], Flags | None, bool]] = [(node, said, None, keep)]
    while waiting:
        each, flat, parent, kept = waiting.pop()
        if each in entries:
            flat = {**entries[each].explicit, **entries[each].wanted, **flat}
        if keep:
            flat = typed_options(each, flat)
        entry = entries[each] = _make_entry(each, flat, parent)
        for child in each.children.values():
            if child.node.inherits_from is each:
                below = _said_of_child(child, flat, kept)
                if below is not None:
                    waiting.append((child.node, below[0], entry.flags, below[1]))


def _said_of_child(
    child: Child, flat: dict[str, Any], keep: bool
) -> tuple[dict[str, Any], bool] | None:
    """The new explicit options of a child and whether others stay; None: it is not concerned."""
    if child.name not in flat:
        said = subtree(flat, child.name)
        return (_kept_options(child.node) | said, True) if keep else (said, False)
    if flat[child.name] == child.node.name:
        return _kept_options(child.node) | subtree(flat, child.name), True
    return None


def _kept_options(node: Node) -> dict[str, Any]:
    """What says that everything stays: the explicit options, children by their names."""
    children = {
        spec.name: node.children[spec.name].node.name
        for spec in node.type.children
        if spec.name in node.children
    }
    return explicit_options(node) | children


def explicit_options(node: Node) -> dict[str, Any]:
    """What was said of the node when it was opened, flat, its children left out."""
    flat = flatten(_dumped(node.options))
    for spec in node.type.children:
        flat = without(flat, spec.name)
    return flat


def _make_entry(node: Node, flat: dict[str, Any], parent: Flags | None) -> _Entry:
    explicit, wanted = flat, {}
    for name in {*_REPLACEABLE, *(spec.name for spec in node.type.children)}:
        if name in explicit:
            wanted[name] = explicit[name]
        if name in wanted or _inherits(node, name):
            explicit = without(explicit, name)
    role = next((u.role for u in node.parents if isinstance(u, Child)), Role.IMAGE)
    flags = resolve(_common(explicit), parent, role)
    if parent is None and "discard" not in explicit:
        flags = attrs.evolve(flags, discard=node.flags.discard)
    return _Entry(node, explicit, flags, wanted)


def _inherits(node: Node, name: str) -> bool:
    return name in node.children and node.children[name].node.inherits_from is node


def _common(explicit: dict[str, Any]) -> Any:
    """The options that every node has, as an object."""
    from blockyard.schema.block import BlockdevCacheOptions, BlockdevOptions

    names = ("read-only", "auto-read-only", "force-share", "discard", "detect-zeroes", "active")
    return BlockdevOptions(
        driver="",
        cache=BlockdevCacheOptions(
            direct=explicit.get("cache.direct"), no_flush=explicit.get("cache.no-flush")
        ),
        **{name.replace("-", "_"): explicit.get(name) for name in names},
    )


def _visited(entry: _Entry) -> Any:
    """The options in their visited form, children by node-name."""
    from blockyard.schema import visit
    from blockyard.schema.block import BlockdevOptions

    node = entry.node
    tree = nested(entry.explicit)
    for spec in node.type.children:
        value = _reference(node, spec, entry.wanted)
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
    has_backing = node.type.supports_backing and "backing" in node.children
    if has_backing and "backing" not in entry.wanted:
        _let_driver_judge(entry)
        raise InvalidOption(f"backing is missing for '{node.name}'")
    changes = _child_changes(graph, entry)
    try:
        _check_unchanged(entry)
    except InvalidOption:
        _let_driver_judge(entry)
        raise
    options = _visited(entry)
    _take_flags(entry, tran)
    await node.driver.reopen_prepare(options.u, entry.flags.read_only)
    tran.add(commit=lambda: _commit(node, options), abort=node.driver.reopen_abort)
    for name, new in changes.items():
        _replace_child(graph, node, name, new, released, tran)


def _commit(node: Node, options: Any) -> None:
    node.driver.reopen_commit()
    node.options = options
    node.driver.options = options.u


def _take_flags(entry: _Entry, tran: Transaction) -> None:
    node, old = entry.node, entry.node.flags
    was_read_only = node.read_only
    # A reopen can let go of an image, and does not take it back.
    active = node.active and entry.flags.active
    if node.active and not active:
        if any(parent.active for parent in parent_nodes(node)):
            raise Busy("Node has active parent node")
        tran.add(commit=lambda: node.driver.set_active(False))
    new = attrs.evolve(entry.flags, active=active, force_share=node.force_share)
    node.flags = new
    node.take_flags(new)

    def undo() -> None:
        node.flags = old
        node.take_flags(old)
        node.read_only = was_read_only

    tran.add(abort=undo)


def _check_left_out(entry: _Entry) -> None:
    ignored = COMMON | set(entry.node.type.mutable_options)
    given = entry.explicit.keys() - {"active"}
    for key in reported(explicit_options(entry.node)):
        if key not in given and key not in ignored:
            raise InvalidOption(f"Option '{key}' cannot be reset to its default value")


def _check_unchanged(entry: _Entry) -> None:
    node, before = entry.node, explicit_options(entry.node)
    before |= {"driver": node.type.name, "node-name": node.name}
    free = (COMMON - {"node-name"}) | {"active"} | set(node.type.mutable_options)
    for key in reported([*entry.explicit, *entry.wanted]):
        if key in entry.wanted:
            same = _may_change(node, key) or entry.wanted[key] == _present(node, key)
        else:
            same = key in free or before.get(key) == entry.explicit[key]
        if not same or (key == "force-share" and not entry.flags.read_only):
            raise InvalidOption(f"Cannot change the option '{key}'")


def _let_driver_judge(entry: _Entry) -> None:
    """What the driver itself refuses comes first, as in QEMU."""
    if entry.explicit.get("driver") != entry.node.type.name:
        return
    try:
        options = _visited(entry)
    except InvalidOption:
        return
    entry.node.driver.reopen_judge(options.u)


def _may_change(node: Node, name: str) -> bool:
    return name in _REPLACEABLE and any(spec.name == name for spec in node.type.children)


def _present(node: Node, name: str) -> str | None:
    return node.children[name].node.name if name in node.children else None


def _child_changes(graph: Graph, entry: _Entry) -> dict[str, Node | None]:
    """What becomes of the children that the command replaces or takes away.

    :raises NotFound: if it names a node that does not exist.
    :raises InvalidOption: if it would make a cycle.
    """
    node = entry.node
    changes: dict[str, Node | None] = {}
    for name in ("backing", "file"):
        if name in entry.wanted:
            wanted = entry.wanted[name]
            new = graph.lookup(wanted) if wanted is not None else None
            if new is not None and reaches(new, node):
                raise InvalidOption(
                    f"Making '{wanted}' a {name} child of '{node.name}' would create a cycle"
                )
            old = node.children.get(name)
            if new is not (old and old.node):
                _check_place(node, name, old is not None)
                changes[name] = new
    return changes


def _check_place(node: Node, name: str, present: bool) -> None:
    """Refuse a child that the driver has no place for."""
    if node.type.kind == "filter" and not present:
        raise InvalidOption(
            f"'{node.name}' is a {node.type.name} filter node that does not support a {name} child"
        )
    if name == "backing" and not node.type.supports_backing:
        raise InvalidOption(
            f"Driver '{node.type.name}' of node '{node.name}' does not support backing files"
        )
    if name == "file" and not present:
        raise InvalidOption("Cannot set file child to format node without file child")


def _replace_child(
    graph: Graph, node: Node, name: str, new: Node | None, released: list[Node], tran: Transaction
) -> None:
    old = node.children.get(name)
    if new is not None and _inherits_below(new, node):
        # What was between them goes.
        tran.add(commit=partial(setattr, new, "inherits_from", node))
    if old is not None:
        released.append(old.node)
        if old.node.inherits_from is node:
            tran.add(commit=partial(setattr, old.node, "inherits_from", None))
    if old is not None and new is not None:
        retarget(graph, old, new, tran)
    elif old is not None:
        detach(graph, old, tran)
    elif new is not None:
        spec = next(spec for spec in node.type.children if spec.name == name)
        child = Child(name=name, role=node.driver.child_role(spec), parent=node, node=new)
        attach(graph, node, child, tran)
        child.perm, child.shared = initial(child)


def _inherits_below(node: Node, parent: Node) -> bool:
    """Whether ``node`` inherits from ``parent``, directly or through others."""
    above: Node | None = node
    while above is not None and above is not parent:
        above = above.inherits_from
    return above is parent
