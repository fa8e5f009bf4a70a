# SPDX-License-Identifier: Apache-2.0
"""What is told about images: QAPI ImageInfo, with the backing chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard.changes.topology import backing_below
from blockyard.errors import BlockyardError, ImageIOError
from blockyard.imagename import absolute
from blockyard.naming import Names, names_of
from blockyard.permission import Role
from blockyard.schema.order import dict_order
from blockyard.snapshots import snapshots_of

if TYPE_CHECKING:
    from blockyard.node import Node

__all__ = ["Images", "allocated_size"]

_STORAGE = Role.DATA | Role.METADATA | Role.FILTERED
_MAX_IOV = 1024
_PAGE = 4096
_ENOTSUP = 95


@attrs.define(eq=False)
class Images:
    """The answers to one query: each image is asked once, however many chains it is in.

    They are dicts with QAPI's member names, and parts of each other.
    """

    _names: dict[Node, Names] = attrs.field(factory=dict)
    _infos: dict[Node, dict[str, Any]] = attrs.field(factory=dict)

    def filename(self, node: Node) -> str:
        """The node's name."""
        return names_of(node, self._names).filename

    async def info(self, node: Node, *, flat: bool) -> dict[str, Any]:
        """QAPI ImageInfo; unless ``flat``, with what a filter shows or the backing file inside.

        :raises BlockyardError: if the image cannot be asked.
        """
        if flat:
            return await self._own(node)
        chain = [node, *backing_below(node)]
        below: dict[str, Any] | None = None
        for each in reversed(chain):
            if each not in self._infos:
                own = await self._own(each)
                self._infos[each] = own if below is None else {**own, "backing-image": below}
            below = self._infos[each]
        return self._infos[node]

    async def tree(self, node: Node) -> dict[str, Any]:
        """QAPI BlockGraphInfo: the node's own, and that of each child inside ``children``.

        :raises BlockyardError: if an image cannot be asked.
        """
        top: dict[str, Any] = {**await self._own(node), "children": []}
        waiting = [(node, top)]
        while waiting:
            each, told = waiting.pop()
            for name in dict_order(list(each.children)):
                below = each.children[name].node
                info = {**await self._own(below), "children": []}
                told["children"].append({"name": name, "info": info})
                waiting.append((below, info))
        return top

    async def _own(self, node: Node) -> dict[str, Any]:
        info: dict[str, Any] = {
            "filename": self.filename(node),
            "format": node.type.name,
            "virtual-size": node.length,
            "dirty-flag": False,
            "limits": _limits(node),
            "actual-size": await allocated_size(node),
            "cluster-size": node.cluster_size or None,
            **_backing(node),
            "snapshots": await _snapshots(node) or None,
        }
        info.update(await node.driver.image_info())
        return {name: value for name, value in info.items() if value is not None}


def _backing(node: Node) -> dict[str, Any]:
    """What the image records of its backing file."""
    if not node.backing_file:
        return {}
    try:
        full = absolute(node, node.backing_file)
    except BlockyardError:
        full = None
    return {
        "backing-filename": node.backing_file,
        "full-backing-filename": full,
        "backing-filename-format": node.backing_format or None,
    }


async def _snapshots(node: Node) -> list[Any]:
    from blockyard.schema import dump

    try:
        return [dump(each) for each in await snapshots_of(node)]
    except ImageIOError as error:
        if error.errno != _ENOTSUP:
            raise
        return []


async def allocated_size(node: Node) -> int | None:
    """Bytes that a node occupies; None: nobody knows.

    It is what the driver says, or else what its storage children say together; iterative.
    """
    total, known, waiting = 0, False, [node]
    while waiting:
        each = waiting.pop()
        size = await each.driver.allocated_size()
        if size is not None:
            total, known = total + size, True
        else:
            waiting += [c.node for c in each.children.values() if c.role & _STORAGE]
    return total if known else None


def _limits(node: Node) -> dict[str, int]:
    own = node.limits
    below = [child.node.limits for child in node.children.values()]
    every = [own, *below]
    transfers = [each.max_transfer for each in every if each.max_transfer]
    iovs = [each.max_iov for each in every if each.max_iov]
    info = {
        "request-alignment": own.request_alignment,
        "max-discard": own.max_discard,
        "discard-alignment": own.discard_alignment,
        "max-write-zeroes": own.max_write_zeroes,
        "write-zeroes-alignment": own.write_zeroes_alignment,
        "opt-transfer": max(each.optimal_transfer for each in every),
        "max-transfer": min(transfers, default=0),
    }
    alignment = max(each.memory_alignment for each in every)
    return {name: value for name, value in info.items() if value} | {
        "max-iov": min(iovs, default=_MAX_IOV),
        "min-mem-alignment": alignment,
        "opt-mem-alignment": max(alignment, _PAGE),
    }
