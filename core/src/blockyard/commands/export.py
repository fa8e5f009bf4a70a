# SPDX-License-Identifier: Apache-2.0
"""block-export-add, block-export-del, query-block-exports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.qmp.command import command
from blockyard.schema.declare import struct
from blockyard.schema.export import BlockExportInfo, BlockExportOptions, BlockExportRemoveMode

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["block_export_add", "block_export_del", "query_block_exports"]


@struct
class BlockExportDelArguments:
    """What block-export-del takes.

    id: the export.
    mode: safe: only if no client uses it; hard: its clients are cut off (safe).
    """

    id: str
    mode: BlockExportRemoveMode | None = None


@command("block-export-add", args=BlockExportOptions)
async def block_export_add(yard: Yard, args: BlockExportOptions) -> None:
    """Serve a node to clients."""
    await yard.exports.add(args)


@command("block-export-del", args=BlockExportDelArguments)
async def block_export_del(yard: Yard, args: BlockExportDelArguments) -> None:
    """End an export; BLOCK_EXPORT_DELETED tells when it is gone."""
    await yard.exports.delete(args.id, hard=args.mode is BlockExportRemoveMode.HARD)


@command("query-block-exports", returns=list[BlockExportInfo])
async def query_block_exports(yard: Yard, args: None) -> list[BlockExportInfo]:
    """All exports, the newest first."""
    return [
        BlockExportInfo(
            id=export.id,
            type=export.options.type,
            node_name=export.node.name,
            shutting_down=export.shutting_down,
        )
        for export in yard.exports
    ]
