# SPDX-License-Identifier: Apache-2.0
"""Permissions over a changed subgraph: compute, check, and commit or abort.

The change (an edge, a root, a flag) is made first, inside a transaction; then
:func:`refresh` walks down from what it touched, parents before children.  Each
node's users must get along; then its driver prepares for their sum (a file takes
its locks), and its edges are given what follows for its children.  Below an edge
that carries what it carried before nothing is done, so that a change costs what it
changes, and not what hangs below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.changes.topology import sorted_below
from blockyard.errors import PermissionConflict
from blockyard.permission import Perm, User, check_users, cumulative

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from blockyard.changes.transaction import Transaction
    from blockyard.node import Child, Node

__all__ = ["ask", "initial", "refresh"]

_WRITES = Perm.WRITE | Perm.WRITE_UNCHANGED


async def refresh(
    starts: Iterable[Node], tran: Transaction, *, was_writable: Collection[Node] = ()
) -> None:
    """Bring the permissions below ``starts`` in line with the graph as it is now.

    ``starts`` are all the nodes whose users, flags or own wishes have changed.
    ``was_writable``: nodes that the same transaction has made read-only.

    :raises PermissionConflict: if users of a node do not get along, here or in
        another process; nothing has changed once ``tran`` is aborted.
    """
    concerned = dict.fromkeys(starts)
    if len(concerned) == 1:
        # Most often nothing follows, and then what lies below need not be sorted.
        (start,) = concerned
        concerned = await _refresh_one(start, tran, was_writable)
        order = sorted_below([start])[1:] if concerned else []
    else:
        order = sorted_below(list(concerned))
    for node in order:
        if node in concerned:
            concerned |= await _refresh_one(node, tran, was_writable)


async def _refresh_one(
    node: Node, tran: Transaction, was_writable: Collection[Node]
) -> dict[Node, None]:
    """One node; answers the children for which something has changed by it."""
    check_users(node.name, node.parents)
    perm, shared = cumulative(node.parents)
    _check_node(node, perm, node in was_writable)
    await node.driver.check_permissions(perm, shared)
    _settle(node, perm, shared, tran)
    changed: dict[Node, None] = {}
    for child in node.children.values():
        wanted = child.permissions_below(perm, shared)
        if wanted != (child.perm, child.shared):
            ask(child, *wanted, tran)
            changed[child.node] = None
    return changed


def ask(user: User, perm: Perm, shared: Perm, tran: Transaction) -> None:
    """Give an edge or root other permissions; back on abort."""
    old = user.perm, user.shared

    def undo() -> None:
        user.perm, user.shared = old

    user.perm, user.shared = perm, shared
    tran.add(abort=undo)


def _settle(node: Node, perm: Perm, shared: Perm, tran: Transaction) -> None:
    tran.add(
        commit=lambda: node.driver.set_permissions(perm, shared),
        abort=node.driver.abort_permissions,
    )


def _check_node(node: Node, perm: Perm, was_writable: bool) -> None:
    if not perm & _WRITES:
        return
    if not node.writable and was_writable:
        raise PermissionConflict(
            f"Read-only block node '{node.name}' cannot support read-write users"
        )
    if not node.writable:
        raise PermissionConflict("Block node is read-only")
    # Without RESIZE the last request cannot be aligned up past the end.
    if not perm & Perm.RESIZE and _unaligned(node):
        raise PermissionConflict(
            "Cannot get 'write' permission without 'resize': "
            "Image size is not a multiple of request alignment"
        )


def _unaligned(node: Node) -> bool:
    return node.native is not None and node.length % node.limits.request_alignment != 0


def initial(child: Child) -> tuple[Perm, Perm]:
    """What a new edge carries, given its parent's present users."""
    return child.permissions_below(*cumulative(child.parent.parents))
