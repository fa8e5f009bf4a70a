# SPDX-License-Identifier: Apache-2.0
"""Permissions: what each user of a node needs, and what it lets others do.

Every edge of the graph (a parent's use of a child) and every root (an export's,
a job's, a library handle's) carries two sets of :class:`Perm`: the permissions
it *uses*, and those it *shares* with the node's other users.  Two users of one
node conflict when one uses what the other does not share; a change that would
make such a pair is refused before anything changes (QEMU, docs/devel, "block
permissions").

This module is arithmetic only.  The graph (``graph.py``) applies it.
"""

import enum
from collections.abc import Iterable
from typing import Protocol

from blockyard.errors import PermissionConflict

__all__ = [
    "ALL",
    "NONE",
    "Perm",
    "Role",
    "User",
    "check_users",
    "cow_permissions",
    "cumulative",
    "default_permissions",
    "filter_permissions",
    "names",
    "qapi_names",
    "storage_permissions",
]


class Perm(enum.IntFlag):
    """What a user may do to a node.

    The values are QEMU's, which are also the offsets of its lock bytes in files.
    """

    #: Reads see data that makes sense (not the middle of somebody's commit).
    CONSISTENT_READ = 1
    #: Change data that a guest can see.
    WRITE = 2
    #: Write what is already there, as a copy-on-read does.
    WRITE_UNCHANGED = 4
    #: Change the length.
    RESIZE = 8


NONE = Perm(0)
ALL = Perm.CONSISTENT_READ | Perm.WRITE | Perm.WRITE_UNCHANGED | Perm.RESIZE

_NAMES = (
    (Perm.CONSISTENT_READ, "consistent read"),
    (Perm.WRITE, "write"),
    (Perm.WRITE_UNCHANGED, "write unchanged"),
    (Perm.RESIZE, "resize"),
)


def names(perm: Perm) -> str:
    """The set as QEMU's error texts spell it: ``"consistent read, write"``."""
    return ", ".join(name for flag, name in _NAMES if perm & flag)


def qapi_names(perm: Perm) -> list[str]:
    """The set as QAPI's BlockPermission members, in the enum's order."""
    return [name.replace(" ", "-") for flag, name in _NAMES if perm & flag]


class Role(enum.IntFlag):
    """What a child is to its parent (QEMU's BdrvChildRole)."""

    #: Guest data lives in the child.
    DATA = 1
    #: The format's own tables live in the child.
    METADATA = 2
    #: The parent is a filter and shows this child's data unchanged.
    FILTERED = 4
    #: The child is read where the parent has nothing allocated.
    COW = 8
    #: The child that ``file`` or ``backing`` of a chain follows.
    PRIMARY = 16
    #: The usual ``file`` child of a format.
    IMAGE = 19
    #: The usual ``file`` child of a filter.
    FILTER = 20


class User(Protocol):
    """One user of a node, as the conflict check sees it: an edge or a root."""

    name: str
    perm: Perm
    shared: Perm

    @property
    def description(self) -> str:
        """Who uses the node, as errors name it: ``node 'x'``."""
        ...


def cumulative(users: Iterable[User]) -> tuple[Perm, Perm]:
    """What all users together use, and what all of them share."""
    perm, shared = NONE, ALL
    for user in users:
        perm |= user.perm
        shared &= user.shared
    return perm, shared


def check_users(node_name: str, users: Iterable[User]) -> None:
    """Refuse a set of users of one node in which one uses what another does not share.

    :raises PermissionConflict: naming the node, the permissions and both users.
    """
    all_users = list(users)
    for owner in all_users:
        for other in all_users:
            missing = other.perm & ~owner.shared
            if owner is not other and missing:
                raise _conflict(node_name, missing, needs=other, unshared=owner)


def _conflict(node: str, missing: Perm, needs: User, unshared: User) -> PermissionConflict:
    return PermissionConflict(
        f"Permission conflict on node '{node}': permissions '{names(missing)}' are both "
        f"required by {needs.description} (uses node '{node}' as '{needs.name}' child) and "
        f"unshared by {unshared.description} (uses node '{node}' as '{unshared.name}' child)."
    )


def filter_permissions(perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
    """What a filter asks of the child it shows: what its own users ask of it."""
    return perm, shared


def cow_permissions(perm: Perm, shared: Perm, *, inactive: bool = False) -> tuple[Perm, Perm]:
    """What a format asks of its backing file.

    Only consistent reads are used.  Others may write and resize it only when the
    parent's own users can live with data that changes.
    """
    wanted = perm & Perm.CONSISTENT_READ
    offered = Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED
    if shared & Perm.WRITE or inactive:
        offered |= Perm.WRITE | Perm.RESIZE
    return wanted, offered


def storage_permissions(
    role: Role, perm: Perm, shared: Perm, *, writable: bool, inactive: bool = False
) -> tuple[Perm, Perm]:
    """What a format asks of the child that holds its data, its tables, or both.

    Tables are read and, when the node is writable, written and grown whatever the
    users do, and nobody else may do so.  Writing data may grow the file.
    """
    if role & Role.METADATA:
        if writable:
            perm |= Perm.WRITE | Perm.RESIZE
        perm |= Perm.CONSISTENT_READ
        shared &= ~(Perm.WRITE | Perm.RESIZE)
    if role & Role.DATA:
        shared &= ~Perm.RESIZE
        if perm & Perm.WRITE_UNCHANGED:
            perm |= Perm.WRITE
        if perm & Perm.WRITE:
            perm |= Perm.RESIZE
    if inactive:
        shared |= Perm.WRITE | Perm.RESIZE
    return perm, shared


def default_permissions(
    role: Role, perm: Perm, shared: Perm, *, writable: bool, inactive: bool = False
) -> tuple[Perm, Perm]:
    """What a parent asks of a child in ``role``, its own users asking (perm, shared)."""
    if role & Role.FILTERED:
        return filter_permissions(perm, shared)
    if role & Role.COW:
        return cow_permissions(perm, shared, inactive=inactive)
    return storage_permissions(role, perm, shared, writable=writable, inactive=inactive)
