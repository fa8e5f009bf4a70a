# SPDX-License-Identifier: Apache-2.0
"""The handshake's numbers and layouts; names are the protocol document's.

NetworkBlockDevice/nbd ``doc/proto.md``, "Handshake phase" under "Values", and the
extension EXTENDED_HEADERS.
"""

from __future__ import annotations

import enum
import struct

__all__ = [
    "CLIENT_FLAGS",
    "GREETING",
    "IHAVEOPT",
    "MAX_BITMAPS",
    "MAX_OPTION",
    "MAX_STRING",
    "OPTION_HEADER",
    "Context",
    "HandshakeFlag",
    "Info",
    "Mode",
    "Option",
    "Reply",
    "TransmissionFlag",
    "info_reply",
    "option_name",
    "option_reply",
]

NBDMAGIC = 0x4E42444D41474943
IHAVEOPT = 0x49484156454F5054
REPLY_MAGIC = 0x3E889045565A9

#: Longest string either side may send, in bytes ("Conventions").
MAX_STRING = 4096
#: Longest option data that is read, and thrown away where it is not wanted; QEMU's limit.
MAX_OPTION = 32 * 1024 * 1024

#: magic, option, length of data
OPTION_HEADER = struct.Struct(">QII")
CLIENT_FLAGS = struct.Struct(">I")
_GREETING = struct.Struct(">QQH")
_REPLY_HEADER = struct.Struct(">QIII")


class HandshakeFlag(enum.IntFlag):
    """Bits of the server's greeting and of the client's answer to it."""

    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


#: What the server says first.
GREETING = _GREETING.pack(
    NBDMAGIC, IHAVEOPT, HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
)


class Option(enum.IntEnum):
    """Options a client may send."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    PEEK_EXPORT = 4
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10
    EXTENDED_HEADERS = 11


class Reply(enum.IntEnum):
    """Types of replies to options; errors have bit 31 set."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 0x80000001
    ERR_POLICY = 0x80000002
    ERR_INVALID = 0x80000003
    ERR_PLATFORM = 0x80000004
    ERR_TLS_REQD = 0x80000005
    ERR_UNKNOWN = 0x80000006
    ERR_SHUTDOWN = 0x80000007
    ERR_BLOCK_SIZE_REQD = 0x80000008
    ERR_TOO_BIG = 0x80000009
    ERR_EXT_HEADER_REQD = 0x8000000A


class Info(enum.IntEnum):
    """Pieces of information about an export."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class TransmissionFlag(enum.IntFlag):
    """What the export can do, as the client is told."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_RESIZE = 1 << 9
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11
    BLOCK_STATUS_PAYLOAD = 1 << 12


class Mode(enum.IntEnum):
    """How replies look; the later include the former.  The numbers are csrc/parse.h's."""

    SIMPLE = 0
    STRUCTURED = 1
    EXTENDED = 2


class Context(enum.IntEnum):
    """Metadata contexts; the value is the id on the wire and the bit in csrc/parse.h.

    The first bitmap of an export has ``BITMAP``, the next one more.
    """

    ALLOCATION = 0
    DEPTH = 1
    BITMAP = 2


#: Bitmaps that an export can show.
MAX_BITMAPS = 62


def option_reply(option: int, kind: Reply, data: bytes = b"") -> bytes:
    """One reply to an option ("Fixed newstyle negotiation")."""
    return _REPLY_HEADER.pack(REPLY_MAGIC, option, kind, len(data)) + data


def info_reply(option: int, info: Info, data: bytes) -> bytes:
    """One NBD_REP_INFO."""
    return option_reply(option, Reply.INFO, struct.pack(">H", info) + data)


_NAMES = {
    Option.EXPORT_NAME: "export name",
    Option.PEEK_EXPORT: "peek export",
    Option.STRUCTURED_REPLY: "structured reply",
    Option.LIST_META_CONTEXT: "list meta context",
    Option.SET_META_CONTEXT: "set meta context",
    Option.EXTENDED_HEADERS: "extended headers",
}


def option_name(option: int) -> str:
    """What an option is called in messages, as QEMU calls it."""
    try:
        known = Option(option)
    except ValueError:
        return "<unknown>"
    return _NAMES.get(known, known.name.lower())
