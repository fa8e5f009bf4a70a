# SPDX-License-Identifier: Apache-2.0
"""File-descriptor sets: what add-fd and query-fdsets tell."""

from __future__ import annotations

from blockyard.schema.declare import struct

__all__ = ["AddfdInfo", "FdsetFdInfo", "FdsetInfo"]


@struct
class AddfdInfo:
    """A descriptor that was added.

    fdset-id: the set it went to.
    fd: its number in this process.
    """

    fdset_id: int
    fd: int


@struct
class FdsetFdInfo:
    """A descriptor of a set.

    fd: its number in this process.
    opaque: the text that was given with it.
    """

    fd: int
    opaque: str | None = None


@struct
class FdsetInfo:
    """A set of descriptors.

    fdset-id: the set.
    fds: its members.
    """

    fdset_id: int
    fds: list[FdsetFdInfo]
