# SPDX-License-Identifier: Apache-2.0
"""The monitor itself: version, commands, capabilities, monitor objects."""

from __future__ import annotations

from blockyard.schema.declare import QEnum, enum, struct

__all__ = [
    "CommandInfo",
    "MonitorOptions",
    "MonitorQMPCloseAction",
    "MonitorQMPProperties",
    "QMPCapability",
    "VersionInfo",
    "VersionTriple",
]


@enum
class QMPCapability(QEnum):
    """What a client may switch on with qmp_capabilities."""

    OOB = "oob"


@struct
class VersionTriple:
    """A version's three numbers."""

    major: int
    minor: int
    micro: int


@struct
class VersionInfo:
    """The version.

    qemu: the version of QEMU whose interface this is.
    package: whose program this is, and its version.
    """

    qemu: VersionTriple
    package: str


@struct
class CommandInfo:
    """A command's name."""

    name: str


@enum
class MonitorQMPCloseAction(QEnum):
    """What becomes of a monitor whose client has gone."""

    NONE = "none"
    DELETE = "delete"


@struct
class MonitorQMPProperties:
    """A QMP monitor as an object.

    chardev: the chardev that carries it.
    pretty: write JSON over several lines (off).
    close-action: what becomes of it when its client goes (none).
    """

    chardev: str
    pretty: bool | None = None
    close_action: MonitorQMPCloseAction | None = None


@enum
class MonitorMode(QEnum):
    """The language of a monitor."""

    READLINE = "readline"
    CONTROL = "control"


@struct
class MonitorOptions:
    """The daemon's ``--monitor``.

    id: its name.
    mode: its language; only control exists here.
    pretty: write JSON over several lines (off).
    chardev: the chardev that carries it.
    """

    id: str | None = None
    mode: MonitorMode | None = None
    pretty: bool | None = None
    chardev: str
