# SPDX-License-Identifier: Apache-2.0
"""Drained sections: a part of the graph in which nothing is in flight.

A section covers the nodes named, everything above them, and the roots and owners
(jobs, exports) up there.  New requests wait at the roots; what was under way ends
first.  Sections nest, and waiting for one never blocks the control thread, since
a driver in Python may have to finish a request first.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import anyio

from blockyard.changes.topology import above, roots_of, sorted_below
from blockyard.changes.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from blockyard.carrier import Carrier
    from blockyard.node import Node
    from blockyard.root import Root

__all__ = ["drained", "hurried"]


@contextmanager
def hurried(nodes: Iterable[Node]) -> Iterator[None]:
    """Tell the nodes and all below that requests in flight are waited for meanwhile.

    Requests that wait for a server that is gone would hold up the end of their users.
    """
    told = [node.driver for node in sorted_below(nodes)]
    for driver in told:
        driver.hurry_begin()
    try:
        yield
    finally:
        for driver in reversed(told):
            driver.hurry_end()


@asynccontextmanager
async def drained(carrier: Carrier, nodes: Iterable[Node]) -> AsyncIterator[None]:
    """Keep the nodes and everything above them drained inside ``async with``.

    Nodes and roots that the section adds are not covered, and one that it removes
    must not be: undo the removal's native part after the section.
    """
    covered = [node for node in above(nodes) if node.native is not None]
    roots = roots_of(covered)
    opening = Transaction()
    with hurried(covered):
        try:
            await _begin(carrier, covered, roots, opening)
        except BaseException:
            await opening.abort()
            raise
        try:
            yield
        finally:
            await opening.abort()


async def _begin(
    carrier: Carrier, nodes: list[Node], roots: list[Root], opening: Transaction
) -> None:
    """Each step records its reverse as the abort of ``opening``."""
    with anyio.CancelScope(shield=True):
        for root in roots:
            if root.owner is not None:
                await root.owner.drained_begin()
                opening.add(abort=root.owner.drained_end)
        for node in nodes:
            await node.driver.drained_begin()
            opening.add(abort=node.driver.drained_end)
        natives = [root.native for root in roots]
        await carrier.drain_begin(natives, nodes)
        opening.add(abort=lambda: carrier.drain_end(natives, nodes))
