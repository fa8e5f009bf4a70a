# SPDX-License-Identifier: Apache-2.0
"""The handshake: fixed newstyle negotiation with one client.

What a client may cost is bounded: the bytes and the number of its options here, the
time by whoever calls :func:`negotiate`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from blockyard_exports_nbd.options import (
    ExportView,
    OptionError,
    Session,
    describe,
    export_flags,
    list_exports,
    meta_contexts,
    parse_info,
    set_mode,
    starttls,
)
from blockyard_exports_nbd.stream import ClientStream, ProtocolError
from blockyard_exports_nbd.wire import (
    CLIENT_FLAGS,
    GREETING,
    IHAVEOPT,
    MAX_OPTION,
    MAX_STRING,
    OPTION_HEADER,
    HandshakeFlag,
    Mode,
    Option,
    Reply,
    option_name,
    option_reply,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["HANDSHAKE_LIMIT", "Negotiated", "negotiate"]

#: Bytes that a client may send before transmission: one option of the greatest length,
#: and room to try others.
HANDSHAKE_LIMIT = 2 * MAX_OPTION
#: Longest data of an option that is looked at: INFO with every request there can be.
_MAX_DATA = 4 + MAX_STRING + 2 + 2 * 0xFFFF
_MAX_OPTIONS = 4096


@attrs.frozen(eq=False, repr=False)
class Negotiated:
    """What a client is to be served by in the transmission phase."""

    export: ExportView
    #: Bytes, as the client was told.
    size: int
    mode: Mode
    #: The ids of the metadata contexts to answer.
    contexts: frozenset[int]


async def negotiate(stream: ClientStream, exports: Mapping[str, ExportView]) -> Negotiated | None:
    """Lead a client to the transmission phase; None if it said goodbye.

    ``exports`` is looked at with each option, so exports may come and go meanwhile.

    :raises ClientGoneError: if the connection ends.
    :raises ProtocolError: if the client must be dropped.
    """
    await stream.write(GREETING)
    flags = CLIENT_FLAGS.unpack(await stream.read(CLIENT_FLAGS.size))[0]
    # An int: the complement of a flag holds no bits that the enum does not know.
    if unknown := flags & ~int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES):
        raise ProtocolError(f"Unknown client flags 0x{unknown:x} received")
    return await _Negotiation(stream, Session(exports), HandshakeFlag(flags)).run()


@attrs.define(eq=False, repr=False)
class _Negotiation:
    stream: ClientStream
    session: Session
    flags: HandshakeFlag

    async def run(self) -> Negotiated | None:
        for _ in range(_MAX_OPTIONS):
            option, length = await self._header()
            if option == Option.EXPORT_NAME:
                return await self._export_name(length)
            if not self.flags & HandshakeFlag.FIXED_NEWSTYLE:
                raise ProtocolError(f"Unsupported option {option} ({option_name(option)})")
            if option == Option.ABORT:
                await self.stream.write(option_reply(option, Reply.ACK))
                return None
            if chosen := await self._answer(option, length):
                return chosen
        raise ProtocolError("too many options")

    async def _header(self) -> tuple[int, int]:
        header = await self.stream.read(OPTION_HEADER.size)
        magic, option, length = OPTION_HEADER.unpack(header)
        if magic != IHAVEOPT:
            raise ProtocolError("Bad magic received")
        if length > MAX_OPTION:
            raise ProtocolError(f"len ({length}) is larger than max len ({MAX_OPTION})")
        return option, length

    async def _answer(self, option: int, length: int) -> Negotiated | None:
        """Serve an option that has replies; not None when it began transmission."""
        chosen: Negotiated | None = None
        try:
            data = await self._data(option, length)
            if option in (Option.INFO, Option.GO):
                replies, chosen = self._info(Option(option), data)
            else:
                replies = _HANDLERS[Option(option)](self.session, data)
        except OptionError as error:
            text = str(error).encode("utf-8", "surrogateescape")
            replies = option_reply(option, error.reply, text)
        await self.stream.write(replies)
        return chosen

    async def _data(self, option: int, length: int) -> bytes:
        served = option in (Option.INFO, Option.GO) or option in _HANDLERS
        if served and length <= _MAX_DATA:
            return await self.stream.read(length)
        await self.stream.skip(length)
        if served:
            raise OptionError(Reply.ERR_TOO_BIG, f"option '{option_name(option)}' is too long")
        raise OptionError(Reply.ERR_UNSUP, f"Unsupported option {option} ({option_name(option)})")

    def _info(self, option: Option, data: bytes) -> tuple[bytes, Negotiated | None]:
        request = parse_info(option, data)
        export = self.session.find(request.name)
        if option == Option.GO:
            self.session.choose(export)
        size = export.size
        replies = describe(self.session, option, request, export, size)
        if option == Option.GO:
            return replies + option_reply(option, Reply.ACK), self._negotiated(export, size)
        if export.minimum_block > 1 and not request.wants_block_size:
            text = b"request NBD_INFO_BLOCK_SIZE to use this export"
            return replies + option_reply(option, Reply.ERR_BLOCK_SIZE_REQD, text), None
        return replies + option_reply(option, Reply.ACK), None

    def _negotiated(self, export: ExportView, size: int) -> Negotiated:
        return Negotiated(export, size, self.session.mode, self.session.contexts)

    async def _export_name(self, length: int) -> Negotiated:
        """EXPORT_NAME has no way to say no but to hang up."""
        if self.session.mode == Mode.EXTENDED:
            raise ProtocolError("Extended headers already negotiated")
        if length > MAX_STRING:
            raise ProtocolError("Bad length received")
        name = (await self.stream.read(length)).decode("utf-8", "surrogateescape")
        if (export := self.session.exports.get(name)) is None:
            raise ProtocolError("export not found")
        self.session.choose(export)
        size = export.size
        flags = export_flags(export, self.session.mode, self.session.contexts)
        padding = b"" if self.flags & HandshakeFlag.NO_ZEROES else bytes(124)
        await self.stream.write(struct.pack(">QH", size, flags) + padding)
        return self._negotiated(export, size)


_HANDLERS: dict[int, Callable[[Session, bytes], bytes]] = {
    Option.LIST: list_exports,
    Option.STARTTLS: lambda session, data: starttls(data),
    Option.STRUCTURED_REPLY: lambda session, data: set_mode(session, Option.STRUCTURED_REPLY, data),
    Option.EXTENDED_HEADERS: lambda session, data: set_mode(session, Option.EXTENDED_HEADERS, data),
    Option.LIST_META_CONTEXT: lambda session, data: meta_contexts(
        session, Option.LIST_META_CONTEXT, data
    ),
    Option.SET_META_CONTEXT: lambda session, data: meta_contexts(
        session, Option.SET_META_CONTEXT, data
    ),
}
