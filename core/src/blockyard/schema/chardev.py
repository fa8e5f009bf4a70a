# SPDX-License-Identifier: Apache-2.0
"""Chardevs: what chardev-add takes and query-chardev tells."""

from __future__ import annotations

from typing import Any

from blockyard.schema.chardevkinds import (
    ChardevCommon,
    ChardevDBus,
    ChardevFile,
    ChardevHostdev,
    ChardevHub,
    ChardevMux,
    ChardevPty,
    ChardevQemuVDAgent,
    ChardevRingbuf,
    ChardevSocket,
    ChardevSpiceChannel,
    ChardevSpicePort,
    ChardevStdio,
    ChardevUdp,
    ChardevVC,
)
from blockyard.schema.declare import QEnum, branches, enum, struct, union

__all__ = [
    "ChardevBackend",
    "ChardevBackendInfo",
    "ChardevBackendKind",
    "ChardevCommonWrapper",
    "ChardevDBusWrapper",
    "ChardevFileWrapper",
    "ChardevHostdevWrapper",
    "ChardevHubWrapper",
    "ChardevInfo",
    "ChardevMuxWrapper",
    "ChardevPtyWrapper",
    "ChardevQemuVDAgentWrapper",
    "ChardevReturn",
    "ChardevRingbufWrapper",
    "ChardevSocketWrapper",
    "ChardevSpiceChannelWrapper",
    "ChardevSpicePortWrapper",
    "ChardevStdioWrapper",
    "ChardevUdpWrapper",
    "ChardevVCWrapper",
    "DataFormat",
]


@enum(value_features={"memory": ("deprecated",)})
class ChardevBackendKind(QEnum):
    """Kinds of chardev."""

    FILE = "file"
    SERIAL = "serial"
    PARALLEL = "parallel"
    PIPE = "pipe"
    SOCKET = "socket"
    UDP = "udp"
    PTY = "pty"
    NULL = "null"
    MUX = "mux"
    HUB = "hub"
    MSMOUSE = "msmouse"
    WCTABLET = "wctablet"
    BRAILLE = "braille"
    TESTDEV = "testdev"
    STDIO = "stdio"
    SPICEVMC = "spicevmc"
    SPICEPORT = "spiceport"
    QEMU_VDAGENT = "qemu-vdagent"
    DBUS = "dbus"
    VC = "vc"
    RINGBUF = "ringbuf"
    MEMORY = "memory"


@struct
class ChardevFileWrapper:
    """The ``data`` of a file chardev."""

    data: ChardevFile


@struct
class ChardevHostdevWrapper:
    """The ``data`` of a serial, parallel or pipe chardev."""

    data: ChardevHostdev


@struct
class ChardevSocketWrapper:
    """The ``data`` of a socket chardev."""

    data: ChardevSocket


@struct
class ChardevUdpWrapper:
    """The ``data`` of a udp chardev."""

    data: ChardevUdp


@struct
class ChardevPtyWrapper:
    """The ``data`` of a pty chardev."""

    data: ChardevPty


@struct
class ChardevCommonWrapper:
    """The ``data`` of a chardev without options of its own."""

    data: ChardevCommon


@struct
class ChardevMuxWrapper:
    """The ``data`` of a mux chardev."""

    data: ChardevMux


@struct
class ChardevHubWrapper:
    """The ``data`` of a hub chardev."""

    data: ChardevHub


@struct
class ChardevStdioWrapper:
    """The ``data`` of a stdio chardev."""

    data: ChardevStdio


@struct
class ChardevSpiceChannelWrapper:
    """The ``data`` of a spicevmc chardev."""

    data: ChardevSpiceChannel


@struct
class ChardevSpicePortWrapper:
    """The ``data`` of a spiceport chardev."""

    data: ChardevSpicePort


@struct
class ChardevQemuVDAgentWrapper:
    """The ``data`` of a qemu-vdagent chardev."""

    data: ChardevQemuVDAgent


@struct
class ChardevDBusWrapper:
    """The ``data`` of a dbus chardev."""

    data: ChardevDBus


@struct
class ChardevVCWrapper:
    """The ``data`` of a vc chardev."""

    data: ChardevVC


@struct
class ChardevRingbufWrapper:
    """The ``data`` of a ringbuf chardev."""

    data: ChardevRingbuf


@union("type")
class ChardevBackend:
    """A chardev to be made."""

    type: ChardevBackendKind
    u: Any = branches(
        fixed={
            "file": ChardevFileWrapper,
            "serial": ChardevHostdevWrapper,
            "parallel": ChardevHostdevWrapper,
            "pipe": ChardevHostdevWrapper,
            "socket": ChardevSocketWrapper,
            "udp": ChardevUdpWrapper,
            "pty": ChardevPtyWrapper,
            "null": ChardevCommonWrapper,
            "mux": ChardevMuxWrapper,
            "hub": ChardevHubWrapper,
            "msmouse": ChardevCommonWrapper,
            "wctablet": ChardevCommonWrapper,
            "braille": ChardevCommonWrapper,
            "testdev": ChardevCommonWrapper,
            "stdio": ChardevStdioWrapper,
            "spicevmc": ChardevSpiceChannelWrapper,
            "spiceport": ChardevSpicePortWrapper,
            "qemu-vdagent": ChardevQemuVDAgentWrapper,
            "dbus": ChardevDBusWrapper,
            "vc": ChardevVCWrapper,
            "ringbuf": ChardevRingbufWrapper,
            "memory": ChardevRingbufWrapper,
        }
    )


@struct
class ChardevReturn:
    """What chardev-add answers.

    pty: the pseudo-terminal's path.
    """

    pty: str | None = None


@struct
class ChardevInfo:
    """A chardev.

    label: its name.
    filename: what it is connected to.
    frontend-open: somebody uses it.
    """

    label: str
    filename: str
    frontend_open: bool


@struct
class ChardevBackendInfo:
    """A kind of chardev."""

    name: str


@enum
class DataFormat(QEnum):
    """How ringbuf data is written in JSON."""

    UTF8 = "utf8"
    BASE64 = "base64"
