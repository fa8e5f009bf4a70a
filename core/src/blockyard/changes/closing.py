# SPDX-License-Identifier: Apache-2.0
"""The end of a node: what was written comes to rest before it goes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from blockyard.changes import drain
from blockyard.errors import BlockyardError

if TYPE_CHECKING:
    from blockyard.carrier import Carrier
    from blockyard.node import Node

__all__ = ["write_back"]

_log = logging.getLogger(__name__)


async def write_back(carrier: Carrier, node: Node) -> None:
    """Flush the node, and let its driver write what a clean end needs.

    What fails is logged: the node ends all the same, and what can be kept is kept.
    """
    try:
        async with drain.drained(carrier, [node]):
            try:
                if node.writable:
                    await carrier.flush(node)
            finally:
                await node.driver.before_close()
    except (BlockyardError, OSError) as error:
        _log.warning("closing node '%s': %s", node.name, error)
