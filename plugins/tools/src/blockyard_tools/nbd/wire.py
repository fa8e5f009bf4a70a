# SPDX-License-Identifier: Apache-2.0
"""The NBD protocol as a client sees it: numbers, names, and QEMU's words for both."""

import enum
import struct

__all__ = [
    "ERRORS", "INIT_MAGIC", "META_QUERY", "NEW_MAGIC", "OLD_MAGIC", "OPTIONS", "OPTION_REPLY",
    "REPLY_MAGIC", "REQUEST", "TRANSMISSION_FLAGS", "UNSUPPORTED", "Info", "Option", "Reply",
]  # fmt: skip

INIT_MAGIC = 0x4E42444D41474943
NEW_MAGIC = 0x49484156454F5054
OLD_MAGIC = 0x00420281861253
REPLY_MAGIC = 0x3E889045565A9

#: magic, option, length
REQUEST = struct.Struct(">QII")
#: magic, option, type, length
OPTION_REPLY = struct.Struct(">QIII")
META_QUERY = struct.Struct(">I")


class Option(enum.IntEnum):
    """Options of the handshake."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10
    EXTENDED_HEADERS = 11


class Reply(enum.IntEnum):
    """Types of replies that are no errors."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4


class Info(enum.IntEnum):
    """What a reply of type INFO tells."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


#: Names of options in texts.
OPTIONS = {
    Option.EXPORT_NAME: "export name",
    Option.ABORT: "abort",
    Option.LIST: "list",
    4: "peek",
    Option.STARTTLS: "starttls",
    Option.INFO: "info",
    Option.GO: "go",
    Option.STRUCTURED_REPLY: "structured reply",
    Option.LIST_META_CONTEXT: "list meta context",
    Option.SET_META_CONTEXT: "set meta context",
    Option.EXTENDED_HEADERS: "extended headers",
}

_FAIL = 1 << 31
UNSUPPORTED = _FAIL | 1
#: Texts of error replies: with the option's number and name, or without.
ERRORS = {
    _FAIL | 2: "Denied by server for option {option} ({name})",
    _FAIL | 3: "Invalid parameters for option {option} ({name})",
    _FAIL | 4: "Server lacks support for option {option} ({name})",
    _FAIL | 5: "TLS negotiation required before option {option} ({name})\n"
    "Did you forget a valid tls-creds?",
    _FAIL | 6: "Requested export not available",
    _FAIL | 7: "Server shutting down before option {option} ({name})",
    _FAIL | 8: "Server requires INFO_BLOCK_SIZE for option {option} ({name})",
}

#: Bit 0 only says that there are flags.
TRANSMISSION_FLAGS = (
    "readonly", "flush", "fua", "rotational", "trim", "zeroes", "df", "multi", "resize", "cache",
    "fast-zero", "block-status-payload",
)  # fmt: skip
