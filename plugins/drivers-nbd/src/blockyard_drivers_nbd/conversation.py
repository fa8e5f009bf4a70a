# SPDX-License-Identifier: Apache-2.0
"""What every handshake with a server is made of: the greeting, options and their replies.

NetworkBlockDevice/nbd ``doc/proto.md``, "Handshake phase".  Texts are QEMU's.  What a
server may cost is bounded: its bytes by the stream, its replies here, the time by
whoever starts the conversation.
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
    Info,
    Mode,
    Option,
    Reply,
    option_name,
    reply_name,
)

if TYPE_CHECKING:
    from blockyard_drivers_nbd.stream import ServerStream

__all__ = ["Answer", "Conversation", "counted", "encoded"]

_MAX_REPLIES = 4096
_ERROR = 1 << 31


def encoded(text: str) -> bytes:
    """A name as servers are told it."""
    return text.encode("utf-8", "surrogateescape")


def counted(data: bytes) -> bytes:
    """The data behind their length."""
    return struct.pack(">I", len(data)) + data


@attrs.frozen
class Answer:
    """The header of one reply to an option."""

    kind: int
    #: Bytes of data, which are still to be read.
    length: int

    @property
    def is_error(self) -> bool:
        """Whether the option was refused; the data are a text then."""
        return bool(self.kind & _ERROR)


@attrs.define(eq=False, repr=False)
class Conversation:
    """One handshake.  Every method raises BlockyardError, in QEMU's words."""

    stream: ServerStream
    #: How the server will reply, as agreed on so far.
    mode: Mode = Mode.SIMPLE

    async def greeting(self) -> HandshakeFlag | None:
        """Read the greeting and answer it; None from a server of the oldest style."""
        magic = await self.number(8, "initial magic")
        if magic != NBDMAGIC:
            raise BlockyardError(f"Bad initial magic received: 0x{magic:x}")
        magic = await self.number(8, "server magic")
        if magic == CLISERV_MAGIC:
            return None
        if magic != IHAVEOPT:
            raise BlockyardError(f"Bad server magic received: 0x{magic:x}")
        given = HandshakeFlag(await self.number(2, "server flags") & 3)
        await self.stream.write(struct.pack(">I", given))
        return given

    async def only_export(self) -> Export:
        """What a server of the oldest style says of its one export."""
        size = await self.number(8, "export length")
        flags = await self.number(4, "export flags") & 0xFFFF
        await self.stream.skip(124, "reserved block")
        return Export(size=size, flags=flags)

    async def agree_on_replies(self) -> None:
        """Ask for the replies that tell most: extended headers, or else structured ones."""
        if await self.agreed(Option.EXTENDED_HEADERS):
            self.mode = Mode.EXTENDED
        elif await self.agreed(Option.STRUCTURED_REPLY):
            self.mode = Mode.STRUCTURED

    async def informed(self, option: Option, name: bytes) -> Export | None:
        """Ask about an export (INFO), or choose it (GO); None if the option is not known."""
        await self.ask(option, counted(name) + struct.pack(">HH", 1, Info.BLOCK_SIZE))
        information = Information()
        for _ in range(_MAX_REPLIES):
            answer = await self.reply(option)
            if answer.is_error:
                message = await self.message(answer)
                if answer.kind == Reply.ERR_UNSUP and self.mode != Mode.EXTENDED:
                    return None
                raise refusal(answer.kind, option, message)
            if answer.kind == Reply.ACK:
                if answer.length:
                    raise BlockyardError("server sent invalid NBD_REP_ACK")
                return information.export()
            await self._inform(information, answer)
        raise BlockyardError("the server sends information without an end")

    async def _inform(self, information: Information, answer: Answer) -> None:
        if answer.kind != Reply.INFO:
            raise BlockyardError(
                f"unexpected reply type {answer.kind} ({reply_name(answer.kind)}), "
                "expected 3 (info)"
            )
        if answer.length < 2:
            raise BlockyardError(f"NBD_REP_INFO length {answer.length} is too short")
        kind = await self.number(2, "info type")
        length = answer.length - 2
        if information.wants(kind, length):
            information.take(kind, await self.stream.read(length, "info"))
        else:
            await self.stream.skip(length, "info")

    # -- pieces

    async def number(self, size: int, what: str) -> int:
        """The next ``size`` bytes, which errors call ``what``."""
        return int.from_bytes(await self.stream.read(size, what), "big")

    async def ask(self, option: Option, data: bytes = b"") -> None:
        """Send an option."""
        await self.stream.write(OPTION_HEADER.pack(IHAVEOPT, option, len(data)) + data)

    async def reply(self, option: Option) -> Answer:
        """The next reply, which must be to this option."""
        header = await self.stream.read(REPLY_HEADER.size, "option reply")
        magic, number, kind, length = REPLY_HEADER.unpack(header)
        if magic != REPLY_MAGIC:
            raise BlockyardError("Unexpected option reply magic")
        if number != option:
            raise BlockyardError(
                f"Unexpected option type {number} ({option_name(number)}), "
                f"expected {option:d} ({option_name(option)})"
            )
        return Answer(kind, length)

    async def message(self, answer: Answer) -> str:
        """The text of an error."""
        if answer.length > MAX_STRING:
            raise BlockyardError(
                f"server error {answer.kind} ({reply_name(answer.kind)}) message is too long"
            )
        data = await self.stream.read(answer.length, "option error message")
        return data.decode("utf-8", "replace")

    async def agreed(self, option: Option) -> bool:
        """Ask for what is either there or not."""
        await self.ask(option)
        answer = await self.reply(option)
        if answer.is_error:
            await self.message(answer)
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
