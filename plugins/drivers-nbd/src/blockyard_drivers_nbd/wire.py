# SPDX-License-Identifier: Apache-2.0
"""The handshake's numbers and layouts, as a client uses them; names are the protocol's.

NetworkBlockDevice/nbd ``doc/proto.md``, "Handshake phase" under "Values", and the
extension EXTENDED_HEADERS.
"""

from __future__ import annotations

import enum
import struct

__all__ = [
    "CLISERV_MAGIC",
    "IHAVEOPT",
    "MAX_STRING",
    "NBDMAGIC",
    "OPTION_HEADER",
    "REPLY_HEADER",
    "REPLY_MAGIC",
    "HandshakeFlag",
    "Info",
    "Mode",
    "Option",
    "Reply",
    "TransmissionFlag",
    "option_name",
    "reply_name",
]

NBDMAGIC = 0x4E42444D41474943
IHAVEOPT = 0x49484156454F5054
#: What a server of the oldest protocol says in place of IHAVEOPT.
CLISERV_MAGIC = 0x00420281861253
REPLY_MAGIC = 0x3E889045565A9
#: Longest string either side may send, in bytes ("Conventions").
MAX_STRING = 4096

#: magic, option, length of data
OPTION_HEADER = struct.Struct(">QII")
#: magic, option, type, length of data
REPLY_HEADER = struct.Struct(">QIII")


class HandshakeFlag(enum.IntFlag):
    """Bits of the server's greeting and of the client's answer to it."""

    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class Option(enum.IntEnum):
    """Options that this client sends."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
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


class Info(enum.IntEnum):
    """Pieces of information about an export."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class TransmissionFlag(enum.IntFlag):
    """What an export can do."""

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
    """How replies look; the later include the former.  The numbers are csrc/control.h's."""

    SIMPLE = 0
    STRUCTURED = 1
    EXTENDED = 2


_OPTIONS = {
    1: "export name",
    2: "abort",
    3: "list",
    4: "peek export",
    5: "starttls",
    6: "info",
    7: "go",
    8: "structured reply",
    9: "list meta context",
    10: "set meta context",
    11: "extended headers",
}
_REPLIES = {
    1: "ack",
    2: "server",
    3: "info",
    4: "meta context",
    0x80000001: "unsupported",
    0x80000002: "denied by policy",
    0x80000003: "invalid",
    0x80000004: "platform lacks support",
    0x80000005: "TLS required",
    0x80000006: "export unknown",
    0x80000007: "server shutting down",
    0x80000008: "block size required",
    0x80000009: "option payload too big",
    0x8000000A: "extended headers required",
}


def option_name(option: int) -> str:
    """What an option is called in messages, as QEMU calls it."""
    return _OPTIONS.get(option, "<unknown>")


def reply_name(kind: int) -> str:
    """What a type of reply is called in messages, as QEMU calls it."""
    return _REPLIES.get(kind, "<unknown>")
