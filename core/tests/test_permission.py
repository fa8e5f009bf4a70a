# SPDX-License-Identifier: Apache-2.0
"""Permissions: the arithmetic, and random graph histories against a model."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockyard.errors import BlockyardError, PermissionConflict
from blockyard.node import Child, Node
from blockyard.permission import (
    ALL,
    NONE,
    Perm,
    Role,
    check_users,
    cumulative,
    default_permissions,
    names,
    qapi_names,
)
from blockyard.schema import visit
from blockyard.schema.block import BlockdevOptions
from blockyard.yard import Yard

if TYPE_CHECKING:
    from blockyard.root import Root

READ, WRITE, RESIZE = Perm.CONSISTENT_READ, Perm.WRITE, Perm.RESIZE
UNCHANGED = Perm.WRITE_UNCHANGED


@attrs.define
class Someone:
    """A user of a node."""

    description: str
    perm: Perm = NONE
    shared: Perm = ALL
    name: str = "root"


def test_names_are_those_of_errors_and_of_the_interface() -> None:
    assert names(READ | WRITE | RESIZE) == "consistent read, write, resize"
    assert qapi_names(ALL) == ["consistent-read", "write", "write-unchanged", "resize"]


def test_a_conflict_names_node_permissions_and_both_users() -> None:
    users = [
        Someone("node 'a'", perm=WRITE | RESIZE, name="file"),
        Someone("an unnamed block device", shared=ALL & ~RESIZE),
    ]

    with pytest.raises(PermissionConflict) as caught:
        check_users("disk", users)
    assert str(caught.value) == (
        "Permission conflict on node 'disk': permissions 'resize' are both required by "
        "node 'a' (uses node 'disk' as 'file' child) and unshared by an unnamed block device "
        "(uses node 'disk' as 'root' child)."
    )


def test_no_users_use_nothing_and_share_everything() -> None:
    assert cumulative([]) == (NONE, ALL)


@pytest.mark.parametrize(
    ("role", "writable", "asked", "answer"),
    [
        (Role.FILTER, True, (WRITE, ALL & ~RESIZE), (WRITE, ALL & ~RESIZE)),
        (Role.IMAGE, True, (NONE, ALL), (READ | WRITE | RESIZE, READ | UNCHANGED)),
        (Role.IMAGE, False, (READ, ALL), (READ, READ | UNCHANGED)),
        (Role.DATA, True, (READ, ALL), (READ, ALL & ~RESIZE)),
        (Role.DATA, True, (UNCHANGED, ALL), (UNCHANGED | WRITE | RESIZE, ALL & ~RESIZE)),
        (Role.DATA, True, (WRITE, READ), (WRITE | RESIZE, READ)),
        (Role.COW, True, (WRITE | READ, ALL), (READ, ALL)),
        (Role.COW, True, (NONE, READ), (NONE, READ | UNCHANGED)),
    ],
)
def test_children_are_asked_as_their_role_says(
    role: Role, writable: bool, asked: tuple[Perm, Perm], answer: tuple[Perm, Perm]
) -> None:
    assert default_permissions(role, *asked, writable=writable) == answer


def test_an_inactive_parent_shares_writing_below() -> None:
    perm, shared = default_permissions(Role.IMAGE, NONE, ALL, writable=False, inactive=True)

    assert shared & (WRITE | RESIZE) == WRITE | RESIZE
    assert perm == READ


# -- histories


def expected_edges(graph: Any) -> dict[tuple[str, str], tuple[Perm, Perm]] | None:
    """Every edge's permissions, worked out from the roots down; None where users conflict."""
    asked: dict[str, list[tuple[Perm, Perm]]] = {name: [] for name in graph.nodes}
    for root in graph.roots():
        asked[root.node.name].append((root.perm, root.shared))
    edges: dict[tuple[str, str], tuple[Perm, Perm]] = {}
    waiting = dict(graph.nodes)
    while waiting:
        name = next(n for n in waiting if not _waits(waiting, waiting[n]))
        node = waiting.pop(name)
        if _conflict(asked[name]) or not _allowed(node, asked[name]):
            return None
        perm, shared = _sum(asked[name])
        for child in node.children.values():
            edge = default_permissions(child.role, perm, shared, writable=not node.read_only)
            edge = (edge[0], ALL) if child.node.force_share else edge
            edges[name, child.name] = edge
            asked[child.node.name].append(edge)
    return edges


def _waits(waiting: dict[str, Node], node: Node) -> bool:
    return any(isinstance(u, Child) and u.parent.name in waiting for u in node.parents)


def _sum(asked: list[tuple[Perm, Perm]]) -> tuple[Perm, Perm]:
    perm, shared = NONE, ALL
    for each in asked:
        perm, shared = perm | each[0], shared & each[1]
    return perm, shared


def _conflict(asked: list[tuple[Perm, Perm]]) -> bool:
    return any(a[0] & ~b[1] for a, b in itertools.permutations(asked, 2))


def _allowed(node: Node, asked: list[tuple[Perm, Perm]]) -> bool:
    writes = _sum(asked)[0] & (WRITE | UNCHANGED)
    fails = getattr(node.options.u, "fails", None) == "check"
    return not (writes and node.read_only) and not (fails and _sum(asked)[0] & WRITE)


def snapshot(graph: Any) -> Any:
    """Everything that a refused change has to leave as it was."""
    return [
        (
            node.name,
            node.read_only,
            [(u.name, u.description, u.perm, u.shared, u.node.name) for u in node.parents],
            [(c.name, c.node.name) for c in node.children.values()],
            node.driver.held,
            node.driver.prepared,
        )
        for node in graph.nodes.values()
    ]


class History:
    """One random life of a graph."""

    def __init__(self, yard: Yard, draw: Any) -> None:
        self.yard = yard
        self.graph = yard.graph
        self.draw = draw
        self.roots: list[Root] = []
        self.numbers = itertools.count()

    async def step(self) -> None:
        """One change; refused or done, everything adds up afterwards."""
        steps = [self.add, self.add, self.attach, self.detach, self.change, self.delete]
        steps += [self.reopen, self.replace, self.insert]
        before = snapshot(self.graph)
        try:
            await self.draw(st.sampled_from(steps))()
        except BlockyardError:
            assert snapshot(self.graph) == before
        self.check()

    def check(self) -> None:
        """The graph is what the model says."""
        edges = expected_edges(self.graph)
        assert edges is not None, "users conflict"
        for node in self.graph.nodes.values():
            for child in node.children.values():
                assert (child.perm, child.shared) == edges[node.name, child.name]
                assert child in child.node.parents
            assert node.driver.prepared is None
            assert node.driver.held == cumulative(node.parents)

    def some(self) -> str:
        """A node's name, or one that is not there."""
        return self.draw(st.sampled_from([*self.graph.nodes, "nowhere"]))

    def perms(self) -> Perm:
        return Perm(self.draw(st.integers(0, int(ALL))))

    def options(self, name: str) -> dict[str, Any]:
        driver = self.draw(st.sampled_from(["mem", "over", "form"]))
        options: dict[str, Any] = {"driver": driver, "node-name": name}
        if self.draw(st.booleans()):
            options["read-only"] = True
            options["force-share"] = self.draw(st.booleans())
        if driver == "mem":
            fails = self.draw(st.sampled_from([None, None, None, "open", "check"]))
            return {**options, **({"fails": fails} if fails else {})}
        options["file"] = self.child(name)
        if driver == "form" and self.draw(st.booleans()):
            options["backing"] = self.child(name)
        return options

    def child(self, name: str) -> Any:
        if self.draw(st.booleans()):
            return self.some()
        return self.options(f"{name}-{next(self.numbers)}")

    def visited(self, options: dict[str, Any]) -> Any:
        return visit(BlockdevOptions, options)

    # -- the steps

    async def add(self) -> None:
        if len(self.graph.nodes) < 8:
            await self.graph.add(self.visited(self.options(f"n{next(self.numbers)}")))

    async def attach(self) -> None:
        node = self.graph.lookup(self.some())
        root = await self.graph.attach_root(node, self.perms(), self.perms())
        self.roots.append(root)

    async def detach(self) -> None:
        if self.roots:
            root = self.roots.pop(self.draw(st.integers(0, len(self.roots) - 1)))
            await self.graph.detach_root(root)

    async def change(self) -> None:
        if self.roots:
            root = self.draw(st.sampled_from(self.roots))
            await self.graph.set_root_permissions(root, self.perms(), self.perms())

    async def delete(self) -> None:
        await self.graph.delete(self.some())

    async def reopen(self) -> None:
        node = self.graph.find(self.some())
        options = {"driver": node.type.name, "node-name": node.name}
        options["read-only"] = self.draw(st.booleans())
        if node.force_share:
            options["force-share"] = True
        for name, child in node.children.items():
            options[name] = self.draw(st.sampled_from([child.node.name, self.some()]))
        if fails := getattr(node.options.u, "fails", None):
            options["fails"] = fails
        if node.type.name == "mem" and self.draw(st.integers(0, 3)) == 0:
            options["fails"] = "prepare"
        await self.graph.reopen([self.visited(options)])

    async def replace(self) -> None:
        old, new = self.graph.find(self.some()), self.graph.find(self.some())
        if old is not new:
            await self.graph.replace(old, new)

    async def insert(self) -> None:
        node = self.graph.find(self.some())
        name = f"n{next(self.numbers)}"
        options = {"driver": "over", "node-name": name, "file": node.name}
        await self.graph.insert(node, self.visited(options))


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_random_histories_follow_the_model(registry: Any, data: st.DataObject) -> None:
    async def live() -> None:
        async with Yard(registry=registry) as yard:
            history = History(yard, data.draw)
            with anyio.fail_after(60):
                for _ in range(data.draw(st.integers(3, 15))):
                    await history.step()

    anyio.run(live)
