# SPDX-License-Identifier: Apache-2.0
"""The options of each kind of chardev."""

from __future__ import annotations

from blockyard.schema.declare import QEnum, enum, struct
from blockyard.schema.sockets import SocketAddressLegacy

__all__ = [
    "ChardevCommon",
    "ChardevDBus",
    "ChardevFile",
    "ChardevHostdev",
    "ChardevHub",
    "ChardevMux",
    "ChardevPty",
    "ChardevQemuVDAgent",
    "ChardevRingbuf",
    "ChardevSocket",
    "ChardevSpiceChannel",
    "ChardevSpicePort",
    "ChardevStdio",
    "ChardevUdp",
    "ChardevVC",
    "ChardevVCEncoding",
]


@struct
class ChardevCommon:
    """What every chardev has.

    logfile: a file that gets a copy of the output.
    logappend: append to it instead of truncating it (false).
    logtimestamp: begin every line of it with the time (false).
    """

    logfile: str | None = None
    logappend: bool | None = None
    logtimestamp: bool | None = None


@struct
class ChardevFile(ChardevCommon):
    """A file.

    in: where input comes from; none if absent.
    out: where output goes.
    append: append to it instead of truncating it (false).
    """

    in_: str | None = None
    out: str
    append: bool | None = None


@struct
class ChardevHostdev(ChardevCommon):
    """A device or named pipe.

    device: its path; of pipes the part before ``.in`` and ``.out``.
    """

    device: str


@struct
class ChardevSocket(ChardevCommon):
    """A stream socket.

    addr: where to listen or connect to.
    tls-creds: the TLS credentials' object.
    tls-authz: the object that decides on a TLS client's identity.
    server: listen instead of connecting (true).
    wait: wait for a client before going on (false).
    nodelay: set TCP_NODELAY (false).
    telnet: speak the telnet protocol (false).
    tn3270: speak the tn3270 protocol (false).
    websocket: speak the websocket protocol (false).
    reconnect-ms: milliseconds between attempts to connect again; 0 is never (0).
    """

    addr: SocketAddressLegacy
    tls_creds: str | None = None
    tls_authz: str | None = None
    server: bool | None = None
    wait: bool | None = None
    nodelay: bool | None = None
    telnet: bool | None = None
    tn3270: bool | None = None
    websocket: bool | None = None
    reconnect_ms: int | None = None


@struct
class ChardevUdp(ChardevCommon):
    """A datagram socket.

    remote: where to send to.
    local: where to receive.
    """

    remote: SocketAddressLegacy
    local: SocketAddressLegacy | None = None


@struct
class ChardevPty(ChardevCommon):
    """A pseudo-terminal.

    path: a symbolic link to be made to it.
    """

    path: str | None = None


@struct
class ChardevMux(ChardevCommon):
    """Several front ends on one chardev.

    chardev: the chardev below.
    """

    chardev: str


@struct
class ChardevHub(ChardevCommon):
    """Several chardevs under one front end.

    chardevs: the chardevs below.
    """

    chardevs: list[str]


@struct
class ChardevStdio(ChardevCommon):
    """Standard input and output.

    signal: keys such as Ctrl-C send signals (true).
    """

    signal: bool | None = None


@struct
class ChardevSpiceChannel(ChardevCommon):
    """A spice channel.

    type: the channel's kind.
    """

    type: str


@struct
class ChardevSpicePort(ChardevCommon):
    """A spice port.

    fqdn: the port's name.
    """

    fqdn: str


@struct
class ChardevQemuVDAgent(ChardevCommon):
    """The spice agent's built-in peer.

    mouse: pass the mouse (true).
    clipboard: pass the clipboard (false).
    """

    mouse: bool | None = None
    clipboard: bool | None = None


@enum
class ChardevVCEncoding(QEnum):
    """Text encodings of a console."""

    CP437 = "cp437"
    UTF8 = "utf8"


@struct
class ChardevDBus(ChardevCommon):
    """A D-Bus chardev.

    name: its name.
    encoding: the text's encoding.
    """

    name: str
    encoding: ChardevVCEncoding | None = None


@struct
class ChardevVC(ChardevCommon):
    """A text console.

    width: in pixels.
    height: in pixels.
    cols: in characters.
    rows: in characters.
    encoding: the text's encoding.
    """

    width: int | None = None
    height: int | None = None
    cols: int | None = None
    rows: int | None = None
    encoding: ChardevVCEncoding | None = None


@struct
class ChardevRingbuf(ChardevCommon):
    """A buffer in memory that keeps the newest output.

    size: its size in bytes, a power of two (65536).
    """

    size: int | None = None
