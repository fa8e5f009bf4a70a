# SPDX-License-Identifier: Apache-2.0
"""Adding and deleting nodes."""

from typing import Any

import pytest

from blockyard.changes.topology import MAX_DEPTH
from blockyard.errors import BlockyardError, Busy, InvalidOption, NotFound
from blockyard.node import Node
from blockyard.permission import Perm
from blockyard.schema import visit
from blockyard.schema.block import BlockdevOptions
from blockyard.yard import Yard

pytestmark = pytest.mark.anyio


async def add(yard: Yard, **options: Any) -> Node:
    return await yard.graph.add(visit(BlockdevOptions, options))


def named(driver: str, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {"driver": driver, **({} if name is None else {"node-name": name}), **more}


async def refused(yard: Yard, text: str, **options: Any) -> None:
    """Adding is refused with this text, and changes nothing."""
    before = dict(yard.graph.nodes)
    with pytest.raises(BlockyardError) as caught:
        await add(yard, **options)
    assert str(caught.value) == text
    assert yard.graph.nodes == before


async def test_a_node_gets_the_name_it_was_given(yard: Yard) -> None:
    node = await add(yard, **named("mem", "disk"))

    assert yard.graph.nodes == {"disk": node}
    assert node.length == 65536


async def test_a_nameless_node_gets_a_name_that_no_user_can_give(yard: Yard) -> None:
    node = await add(yard, **named("mem"))

    assert node.name.startswith("#block")


async def test_children_are_opened_inline_or_by_reference(yard: Yard) -> None:
    await add(yard, **named("mem", "base"))
    top = await add(yard, **named("form", "top", file=named("mem", "own"), backing="base"))

    assert list(top.children) == ["file", "backing"]
    assert top.children["file"].node is yard.graph.nodes["own"]
    assert yard.graph.nodes["own"].inherits_from is top
    assert yard.graph.nodes["base"].inherits_from is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (named("mem", "disk"), "Duplicate nodes with node-name='disk'"),
        (named("mem", "#x"), "Invalid node-name: '#x'"),
        (named("mem", ""), "Invalid node-name: ''"),
        (named("mem", "x" * 32), "Node name too long"),
        (named("over", "x", file="nope"), "Cannot find device='nope' nor node-name='nope'"),
        (
            named("mem", "x", **{"force-share": True}),
            "force-share=on can only be used with read-only images",
        ),
        (
            named("mem", "x", **{"detect-zeroes": "unmap"}),
            (
                "setting detect-zeroes to unmap is not allowed without setting "
                "discard operation to unmap"
            ),
        ),
        (named("mem", "x", fails="open"), "open refused"),
        (
            named("over", "x", file=named("over", "y", file=named("mem", fails="open"))),
            "open refused",
        ),
        (
            named("over", "disk", file=named("mem", "fresh")),
            "Duplicate nodes with node-name='disk'",
        ),
        (named("over", "x", file=named("mem", "x")), "Duplicate nodes with node-name='x'"),
    ],
)
async def test_what_cannot_be_opened_leaves_nothing(
    yard: Yard, options: dict[str, Any], text: str
) -> None:
    await add(yard, **named("mem", "disk"))

    await refused(yard, text, **options)


async def test_an_unknown_driver_is_named_and_the_package_too(yard: Yard) -> None:
    with pytest.raises(InvalidOption, match="qcow2.*install the package blockyard-formats-qcow2"):
        await add(yard, **named("qcow2", "x", file="y"))


async def test_inline_children_inherit_and_references_do_not(yard: Yard) -> None:
    await add(yard, **named("mem", "ref"))
    cache = {"direct": True, "no-flush": True}
    common = {"read-only": True, "cache": cache, "force-share": True}
    await add(
        yard,
        **named("form", "top", file=named("mem", "own"), backing=named("mem", "back"), **common),
    )
    await add(yard, **named("over", "other", file="ref", **common))

    own, back, ref = (yard.graph.nodes[name] for name in ("own", "back", "ref"))
    assert (own.read_only, own.cache_direct, own.cache_no_flush) == (True, True, True)
    assert own.force_share
    assert own.discard == "unmap"
    assert back.read_only
    assert (ref.read_only, ref.cache_direct, ref.discard) == (False, False, "ignore")


async def test_a_backing_file_is_read_only_unless_said(yard: Yard) -> None:
    await add(
        yard,
        **named("form", "a", file=named("mem"), backing=named("mem", "b")),
    )
    await add(
        yard,
        **named("form", "c", file=named("mem"), backing=named("mem", "d", **{"read-only": False})),
    )

    assert yard.graph.nodes["b"].read_only
    assert not yard.graph.nodes["d"].read_only


async def test_deleting_ends_the_children_that_nobody_else_uses(yard: Yard) -> None:
    await add(yard, **named("mem", "shared"))
    await add(yard, **named("form", "top", file=named("mem", "own"), backing="shared"))

    await yard.graph.delete("top")

    assert list(yard.graph.nodes) == ["shared"]


async def test_what_is_used_cannot_be_deleted(yard: Yard) -> None:
    graph = yard.graph
    await add(yard, **named("form", "top", file=named("mem", "own"), backing=named("mem", "back")))
    await add(yard, **named("mem", "base"))
    await add(yard, **named("over", "user", file="base"))
    root = await graph.attach_root(graph.nodes["user"], Perm.CONSISTENT_READ)

    for name, text in {
        "nope": "Failed to find node with node-name='nope'",
        "user": "Node user is in use",
        "own": "Node own is not owned by the monitor",
        "back": "Node 'back' is busy: node is used as backing hd of 'top'",
        "base": "Block device base is in use",
    }.items():
        with pytest.raises((Busy, NotFound)) as caught:
            await graph.delete(name)
        assert str(caught.value) == text
    await graph.detach_root(root)
    await graph.delete("user")


async def test_depth_is_capped_and_served_at_the_cap(yard: Yard) -> None:
    await add(yard, **named("mem", "n0"))
    for level in range(1, MAX_DEPTH):
        await add(yard, **named("over", f"n{level}", file=f"n{level - 1}"))
    top = yard.graph.nodes[f"n{MAX_DEPTH - 1}"]

    await refused(
        yard,
        f"Making '{top.name}' a file child of 'x' would make the graph "
        f"deeper than {MAX_DEPTH} nodes",
        **named("over", "x", file=top.name),
    )
    root = await yard.graph.attach_root(top, Perm.CONSISTENT_READ)
    assert await root.access.read(0, 512) == bytes(512)
    await yard.graph.detach_root(root)


async def test_deep_definitions_open_and_end_and_bottomless_ones_are_refused(yard: Yard) -> None:
    options = named("mem", "bottom")
    for level in range(100):
        options = named("over", f"n{level}", file=options)
    top = await add(yard, **options)
    await yard.graph.delete(top.name)
    assert not yard.graph.nodes
    for level in range(600):
        options = named("over", f"m{level}", file=options)

    await refused(yard, "The value is nested too deeply", **options)


async def test_a_driver_that_cannot_be_imported_harms_only_itself(yard: Yard) -> None:
    from blockyard.entrypoints import EntryPoint
    from blockyard.plugins import Registry

    entry = EntryPoint("blockyard.drivers", "broken", "no_such_module:X", "blockyard-broken", "1")
    registry = Registry([entry])

    with pytest.raises(InvalidOption, match="'broken' of blockyard-broken could not be loaded"):
        registry.driver("broken")
    assert registry.records(load=True)[0].error
