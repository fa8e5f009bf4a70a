# SPDX-License-Identifier: Apache-2.0
"""QMP types of FUSE exports; names and members are QEMU's."""

from __future__ import annotations

from blockyard.export import ExportType
from blockyard.schema import QEnum, enum, struct

__all__ = ["FUSE", "BlockExportOptionsFuse", "FuseExportAllowOther"]


@enum
class FuseExportAllowOther(QEnum):
    """Whether users other than the daemon's may be given access (mount option allow_other)."""

    OFF = "off"
    ON = "on"
    AUTO = "auto"


@struct
class BlockExportOptionsFuse:
    """A node as a file.

    mountpoint: an existing regular file; it shows the node's data while the export runs.
    growable: whether writes beyond the end make the node longer (false).
    allow-other: on: other users may be given access by chmod and chown, for which an
        unprivileged daemon needs ``user_allow_other`` in /etc/fuse.conf; off: they may not;
        auto: on if that is possible (auto).
    """

    mountpoint: str
    growable: bool | None = None
    allow_other: FuseExportAllowOther | None = None


#: The export type ``fuse``.
FUSE = ExportType(
    name="fuse",
    options=BlockExportOptionsFuse,
    implementation="blockyard_exports_fuse.export:FuseExport",
    shares_resize=True,
    multithreaded=True,
    title="FUSE",
)
