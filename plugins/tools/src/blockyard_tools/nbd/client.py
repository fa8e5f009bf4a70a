# SPDX-License-Identifier: Apache-2.0
"""The handshake with an NBD server, as its client; blocking, for a program's own use."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

import attrs

from blockyard.errors import BlockyardError
from blockyard_tools.nbd.wire import (
    ERRORS,
    INIT_MAGIC,
    META_QUERY,
    NEW_MAGIC,
    OLD_MAGIC,
    OPTION_REPLY,
    OPTIONS,
    REPLY_MAGIC,
    REQUEST,
    UNSUPPORTED,
    Info,
    Option,
    Reply,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Client", "ExportInfo", "ListUnsupportedError", "connect_inet", "connect_unix"]

#: Bytes that a server may send in one reply.
_MAX_REPLY = 32 << 20
_MAX_STRING = 4096
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OLD_PADDING = 124


class ListUnsupportedError(BlockyardError):
    """Raised when a server cannot say what exports it has."""


@attrs.define
class ExportInfo:
    """What a server tells of one export."""

    name: str
    description: str | None = None
    #: Bytes, and the transmission flags; both 0 where the server does not tell.
    size: int = 0
    flags: int = 0
    #: Bytes: the smallest request, the best and the largest; 0 where it does not tell.
    blocks: tuple[int, int, int] = (0, 0, 0)
    contexts: list[str] = attrs.field(factory=list)


def connect_unix(path: str) -> socket.socket:
    """A connected unix socket.

    :raises BlockyardError: in QEMU's words.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise BlockyardError(f"Failed to connect to '{path}': {error.strerror or error}") from error
    return sock


def connect_inet(host: str, port: str) -> socket.socket:
    """A connected TCP socket.

    :raises BlockyardError: in QEMU's words.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        text = f"address resolution failed for {host}:{port}: {error.strerror}"
        raise BlockyardError(text) from error
    problem: OSError | None = None
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            problem = error
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
    reason = f": {problem.strerror}" if problem else ""
    raise BlockyardError(f"Failed to connect to '{host}:{port}'{reason}") from problem


class Client:
    """One connection in the handshake.  Every method raises BlockyardError in QEMU's words."""

    def __init__(self, sock: socket.socket) -> None:
        """``sock`` is connected and blocking; it stays the caller's."""
        self.socket = sock
        self.structured = self.extended = False
        #: Size and flags, from a server that has one export and no options.
        self.only: ExportInfo | None = None

    def start(self) -> None:
        """Read the greeting and answer it."""
        (magic,) = struct.unpack(">Q", self._read(8, "initial magic"))
        if magic != INIT_MAGIC:
            raise BlockyardError(f"Bad initial magic received: 0x{magic:016x}")
        (magic,) = struct.unpack(">Q", self._read(8, "server magic"))
        if magic == OLD_MAGIC:
            self._old_style()
            return
        if magic != NEW_MAGIC:
            raise BlockyardError(f"Bad server magic received: 0x{magic:016x}")
        (flags,) = struct.unpack(">H", self._read(2, "server flags"))
        if not flags & _FIXED_NEWSTYLE:
            raise ListUnsupportedError("Server does not support export lists")
        answer = _FIXED_NEWSTYLE | (flags & _NO_ZEROES)
        self._send(struct.pack(">I", answer), "clientflags")

    def negotiate_replies(self) -> None:
        """Ask for what tells most: extended headers, or else structured replies."""
        self.extended = self._simple(Option.EXTENDED_HEADERS)
        self.structured = self.extended or self._simple(Option.STRUCTURED_REPLY)

    def names(self) -> list[ExportInfo]:
        """The exports' names and descriptions."""
        self._request(Option.LIST)
        found: list[ExportInfo] = []
        for kind, data in self._replies(Option.LIST, Reply.SERVER):
            if kind is None:
                return []
            found.append(_named(data))
        return found

    def info(self, export: ExportInfo, option: Option = Option.INFO) -> bool:
        """Ask about an export, or choose it (GO); False if the server has no such option."""
        name = export.name.encode(errors="surrogateescape")
        asked = struct.pack(">HH", 1, Info.BLOCK_SIZE)
        self._request(option, META_QUERY.pack(len(name)) + name + asked)
        for kind, data in self._replies(option, Reply.INFO):
            if kind is None:
                return False
            _take_info(export, data)
        return True

    def contexts(self, export: ExportInfo) -> None:
        """Ask for the export's metadata contexts; none where the server does not answer."""
        name = export.name.encode(errors="surrogateescape")
        data = META_QUERY.pack(len(name)) + name + META_QUERY.pack(0)
        self._request(Option.LIST_META_CONTEXT, data)
        try:
            for kind, answer in self._replies(Option.LIST_META_CONTEXT, Reply.META_CONTEXT):
                if kind is None:
                    return
                if len(answer) <= 4:
                    raise BlockyardError(
                        "Failed to negotiate meta context, server answered with unexpected "
                        f"length {len(answer)}"
                    )
                export.contexts.append(_text(answer[4:]))
        except _RefusedError:
            return

    def goodbye(self) -> None:
        """End the handshake; whatever the server says to that."""
        try:
            self.socket.sendall(REQUEST.pack(NEW_MAGIC, Option.ABORT, 0))
        except OSError:
            # It has hung up first.
            pass

    # -- the wire

    def _old_style(self) -> None:
        size, flags = struct.unpack(">QI", self._read(12, "export length"))
        if flags & ~0xFFFF:
            raise BlockyardError(f"Unexpected export flags {flags:0x}x")
        self._read(_OLD_PADDING, "reserved block")
        self.only = ExportInfo("", size=size, flags=flags)

    def _request(self, option: Option, data: bytes = b"") -> None:
        self._send(REQUEST.pack(NEW_MAGIC, option, len(data)) + data, "option request header")

    def _simple(self, option: Option) -> bool:
        """An option that is either there or not."""
        self._request(option)
        kind, data = self._reply(option)
        if kind & 1 << 31:
            return False
        if kind != Reply.ACK:
            raise BlockyardError(
                f"Unexpected reply type {kind} (<unknown>), expected {Reply.ACK:d} (ack)"
            )
        return not data

    def _replies(self, option: Option, wanted: Reply) -> Iterator[tuple[int | None, bytes]]:
        """The replies before the ACK; one of None if the server has no such option."""
        while True:
            kind, data = self._reply(option)
            if kind == UNSUPPORTED:
                yield None, b""
                return
            if kind & 1 << 31:
                raise _refusal(option, kind, data)
            if kind == Reply.ACK:
                if data:
                    raise BlockyardError("length too long for option end")
                return
            if kind != wanted:
                raise BlockyardError(
                    f"Unexpected reply type {kind} (<unknown>), expected {wanted:d}"
                )
            yield kind, data

    def _reply(self, option: Option) -> tuple[int, bytes]:
        header = self._read(OPTION_REPLY.size, "option reply")
        magic, answered, kind, length = OPTION_REPLY.unpack(header)
        if magic != REPLY_MAGIC:
            raise BlockyardError("Unexpected option reply magic")
        if answered != option:
            name = OPTIONS.get(answered, "<unknown>")
            raise BlockyardError(
                f"Unexpected option type {answered} ({name}), "
                f"expected {option:d} ({OPTIONS[option]})"
            )
        if length > _MAX_REPLY:
            raise BlockyardError(f"option reply of {length} bytes is too long")
        return kind, self._read(length, "option reply") if length else b""

    def _read(self, count: int, what: str) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self.socket.recv(min(count - len(parts), 1 << 16))
            except OSError as error:
                reason = os.strerror(error.errno or 5)
                text = f"Failed to read {what}: Unable to read from socket: {reason}"
                raise BlockyardError(text) from error
            if not part:
                raise BlockyardError(
                    f"Failed to read {what}: Unexpected end-of-file before all data were read"
                )
            parts += part
        return bytes(parts)

    def _send(self, data: bytes, what: str) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            reason = os.strerror(error.errno or 5)
            text = f"Failed to send {what}: Unable to write to socket: {reason}"
            raise BlockyardError(text) from error


class _RefusedError(BlockyardError):
    """Raised when the server answers an option with an error."""


def _refusal(option: Option, kind: int, data: bytes) -> _RefusedError:
    form = ERRORS.get(kind, "Unknown error code when asking for option {option} ({name})")
    text = form.format(option=int(option), name=OPTIONS[option])
    if data:
        text += f"\nserver reported: {_text(data)}"
    return _RefusedError(text)


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _named(data: bytes) -> ExportInfo:
    if len(data) < 4:
        raise BlockyardError(f"incorrect option length {len(data)}")
    (length,) = META_QUERY.unpack_from(data)
    if length > len(data) - 4 or length > _MAX_STRING:
        raise BlockyardError("incorrect name length in server's list response")
    name, description = data[4 : 4 + length], data[4 + length :]
    return ExportInfo(_text(name), _text(description) if description else None)


def _take_info(export: ExportInfo, data: bytes) -> None:
    if len(data) < 2:
        raise BlockyardError(f"NBD_REP_INFO length {len(data)} is too short")
    (kind,) = struct.unpack_from(">H", data)
    if kind == Info.EXPORT:
        if len(data) != 12:
            raise BlockyardError(f"Remaining export list length {len(data)} is not 12")
        export.size, export.flags = struct.unpack_from(">QH", data, 2)
    elif kind == Info.BLOCK_SIZE:
        if len(data) != 14:
            raise BlockyardError(f"Remaining export list length {len(data)} is not 14")
        export.blocks = struct.unpack_from(">III", data, 2)
        _check_blocks(export.blocks)


def _check_blocks(blocks: tuple[int, int, int]) -> None:
    for size, what in zip(blocks, ("minimum", "preferred"), strict=False):
        if size == 0 or size & size - 1:
            raise BlockyardError(f"server {what} block size {size} is not a power of two")
