# SPDX-License-Identifier: Apache-2.0
"""The handshake with a server: what it exports, and how it will be spoken to.

In the order of NetworkBlockDevice/nbd ``doc/proto.md``: extended headers or structured
replies, the metadata context, then GO, or EXPORT_NAME where the server knows no GO.
Texts are QEMU's.  What a server may cost is bounded: its bytes and replies here, the
time by whoever calls :func:`negotiate`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from blockyard.errors import BlockyardError
from blockyard_drivers_nbd.information import Export, Information, refusal
from blockyard_drivers_nbd.wire import (
    CLISERV_MAGIC,
    IHAVEOPT,
    MAX_STRING,
    NBDMAGIC,
    OPTION_HEADER,
    REPLY_HEADER,
    REPLY_MAGIC,
    HandshakeFlag,
    Mode,
    Option,
    Reply,
    option_name,
    reply_name,
)

if TYPE_CHECKING:
    from blockyard_drivers_nbd.stream import ServerStream

__all__ = ["HANDSHAKE_LIMIT", "check_names", "negotiate"]

#: Bytes that a server may send before transmission.
HANDSHAKE_LIMIT = 16 << 20
_MAX_REPLIES = 4096
_ERROR = 1 << 31


def check_names(export: str, context: str | None) -> None:
    """Refuse names that no server can be told.

    :raises BlockyardError: with QEMU's text.
    """
    if len(_encoded(export)) > MAX_STRING:
        raise BlockyardError("export name too long to send to server")
    if context is not None and len(_encoded(context)) > MAX_STRING:
        raise BlockyardError("x-dirty-bitmap query too long to send to server")


async def negotiate(stream: ServerStream, export: str, context: str) -> Export:
    """Ask for ``export`` and answer what it is; transmission begins with the next byte.

    ``context`` is the metadata context that is asked for; the answer has ``context_id``
    None if the server does not have it.

    :raises BlockyardError: if the server refuses, breaks the protocol, or goes away.
    """
    return await _Negotiation(stream, _encoded(export), _encoded(context)).run()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@attrs.frozen
class _Answer:
    """One reply to an option."""

    kind: int
    length: int

    @property
    def is_error(self) -> bool:
        return bool(self.kind & _ERROR)


@attrs.define(eq=False, repr=False)
class _Negotiation:
    stream: ServerStream
    name: bytes
    context: bytes
    mode: Mode = Mode.SIMPLE
    context_id: int | None = None

    async def run(self) -> Export:
        magic = await self._number(8, "initial magic")
        if magic != NBDMAGIC:
            raise BlockyardError(f"Bad initial magic received: 0x{magic:x}")
        magic = await self._number(8, "server magic")
        if magic == CLISERV_MAGIC:
            return await self._old_style()
        if magic != IHAVEOPT:
            raise BlockyardError(f"Bad server magic received: 0x{magic:x}")
        given = HandshakeFlag(await self._number(2, "server flags") & 3)
        await self.stream.write(struct.pack(">I", given))
        if given & HandshakeFlag.FIXED_NEWSTYLE and (export := await self._options()):
            return export
        return await self._export_name(given)

    async def _number(self, size: int, what: str) -> int:
        return int.from_bytes(await self.stream.read(size, what), "big")

    async def _old_style(self) -> Export:
        if self.name:
            raise BlockyardError("Server does not support non-empty export names")
        size = await self._number(8, "export length")
        flags = await self._number(4, "export flags") & 0xFFFF
        await self.stream.skip(124, "reserved block")
        return Export(size=size, flags=flags)

    # -- options

    async def _options(self) -> Export | None:
        """GO, and what goes before; None if the server does not know it."""
        if await self._agreed(Option.EXTENDED_HEADERS):
            self.mode = Mode.EXTENDED
        elif await self._agreed(Option.STRUCTURED_REPLY):
            self.mode = Mode.STRUCTURED
        if self.mode != Mode.SIMPLE:
            await self._ask_for_context()
        return await self._go()

    async def _ask(self, option: Option, data: bytes = b"") -> None:
        await self.stream.write(OPTION_HEADER.pack(IHAVEOPT, option, len(data)) + data)

    async def _reply(self, option: Option) -> _Answer:
        header = await self.stream.read(REPLY_HEADER.size, "option reply")
        magic, number, kind, length = REPLY_HEADER.unpack(header)
        if magic != REPLY_MAGIC:
            raise BlockyardError("Unexpected option reply magic")
        if number != option:
            raise BlockyardError(
                f"Unexpected option type {number} ({option_name(number)}), "
                f"expected {option:d} ({option_name(option)})"
            )
        return _Answer(kind, length)

    async def _message(self, answer: _Answer) -> str:
        """The text of an error."""
        if answer.length > MAX_STRING:
            raise BlockyardError(
                f"server error {answer.kind} ({reply_name(answer.kind)}) message is too long"
            )
        data = await self.stream.read(answer.length, "option error message")
        return data.decode("utf-8", "replace")

    async def _agreed(self, option: Option) -> bool:
        await self._ask(option)
        answer = await self._reply(option)
        if answer.is_error:
            await self._message(answer)
            return False
        if answer.kind != Reply.ACK:
            raise BlockyardError(
                f"Server answered option {option:d} ({option_name(option)}) with unexpected "
                f"reply {answer.kind} ({reply_name(answer.kind)})"
            )
        if answer.length:
            raise BlockyardError(
                f"Option {option:d} ('{option_name(option)}') response length is "
                f"{answer.length} (it should be zero)"
            )
        return True

    # -- the metadata context

    async def _ask_for_context(self) -> None:
        option = Option.SET_META_CONTEXT
        parts = (self.name, struct.pack(">I", 1), self.context)
        data = _counted(parts[0]) + parts[1] + _counted(parts[2])
        await self._ask(option, data)
        while True:
            answer = await self._reply(option)
            if answer.is_error:
                await self._message(answer)
                self.context_id = None
                return
            if answer.kind == Reply.ACK:
                if answer.length:
                    raise BlockyardError("Unexpected length to ACK response")
                return
            if self.context_id is not None:
                raise BlockyardError("Server answered with more than one context")
            self.context_id = await self._context(answer)

    async def _context(self, answer: _Answer) -> int:
        if answer.kind != Reply.META_CONTEXT:
            raise BlockyardError(
                f"Unexpected reply type {answer.kind} ({reply_name(answer.kind)}), "
                "expected 4 (meta context)"
            )
        if not 4 < answer.length <= 4 + MAX_STRING:
            raise BlockyardError(
                "Failed to negotiate meta context, server answered with unexpected length "
                f"{answer.length}"
            )
        found = await self._number(4, "context id")
        name = await self.stream.read(answer.length - 4, "context name")
        if name != self.context:
            raise BlockyardError(
                f"Failed to negotiate meta context '{self.context.decode(errors='replace')}', "
                f"server answered with different context '{name.decode(errors='replace')}'"
            )
        return found

    # -- the export

    async def _go(self) -> Export | None:
        await self._ask(Option.GO, _counted(self.name) + struct.pack(">HH", 1, 3))
        information = Information()
        for _ in range(_MAX_REPLIES):
            answer = await self._reply(Option.GO)
            if answer.is_error:
                message = await self._message(answer)
                if answer.kind == Reply.ERR_UNSUP and self.mode != Mode.EXTENDED:
                    return None
                raise refusal(answer.kind, Option.GO, message)
            if answer.kind == Reply.ACK:
                if answer.length:
                    raise BlockyardError("server sent invalid NBD_REP_ACK")
                return self._complete(information.export())
            await self._inform(information, answer)
        raise BlockyardError("the server sends information without an end")

    async def _inform(self, information: Information, answer: _Answer) -> None:
        if answer.kind != Reply.INFO:
            raise BlockyardError(
                f"unexpected reply type {answer.kind} ({reply_name(answer.kind)}), "
                "expected 3 (info)"
            )
        if answer.length < 2:
            raise BlockyardError(f"NBD_REP_INFO length {answer.length} is too short")
        kind = await self._number(2, "info type")
        length = answer.length - 2
        if information.wants(kind, length):
            information.take(kind, await self.stream.read(length, "info"))
        else:
            await self.stream.skip(length, "info")

    async def _export_name(self, given: HandshakeFlag) -> Export:
        """EXPORT_NAME, to which a server says no by hanging up."""
        await self._ask(Option.EXPORT_NAME, self.name)
        size = await self._number(8, "export length")
        flags = await self._number(2, "export flags")
        if not given & HandshakeFlag.NO_ZEROES:
            await self.stream.skip(124, "reserved block")
        return self._complete(Export(size=size, flags=flags))

    def _complete(self, export: Export) -> Export:
        return attrs.evolve(export, mode=self.mode, context_id=self.context_id)


def _counted(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
