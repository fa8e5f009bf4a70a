# SPDX-License-Identifier: Apache-2.0
"""Asking a server what it has, without choosing any of it.

NetworkBlockDevice/nbd ``doc/proto.md``: LIST, then INFO and LIST_META_CONTEXT for each
export, then ABORT.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from blockyard.errors import BlockyardError
from blockyard_drivers_nbd.conversation import Answer, Conversation, counted, encoded
from blockyard_drivers_nbd.information import refusal
from blockyard_drivers_nbd.wire import (
    MAX_STRING,
    HandshakeFlag,
    Mode,
    Option,
    Reply,
    reply_name,
)

if TYPE_CHECKING:
    from blockyard_drivers_nbd.information import Export
    from blockyard_drivers_nbd.stream import ServerStream

__all__ = ["Listed", "Listing", "inquire"]


@attrs.define
class Listed:
    """What a server tells of one export."""

    name: str
    #: Empty where there is none.
    description: str = ""
    #: None where the server does not tell.
    export: Export | None = None
    #: The metadata contexts that can be asked for.
    contexts: list[str] = attrs.field(factory=list)


@attrs.frozen
class Listing:
    """All of a server's exports, and how it would reply to requests."""

    exports: list[Listed]
    mode: Mode


async def inquire(stream: ServerStream) -> Listing:
    """Ask for everything.

    :raises BlockyardError: if the server refuses, breaks the protocol, or goes away.
    """
    return await _Inquiry(stream).run()


class _Inquiry(Conversation):
    async def run(self) -> Listing:
        given = await self.greeting()
        if given is None:
            return Listing([Listed("", export=await self.only_export())], self.mode)
        if not given & HandshakeFlag.FIXED_NEWSTYLE:
            raise BlockyardError("Server does not support export lists")
        await self.agree_on_replies()
        found = await self._names()
        for each in found:
            each.export = await self.informed(Option.INFO, encoded(each.name))
            if each.export is None:
                break  # It would not tell of the others either.
        if self.mode != Mode.SIMPLE:
            for each in found:
                each.contexts = await self._contexts(each.name)
        await self._goodbye()
        return Listing(found, self.mode)

    async def _names(self) -> list[Listed]:
        await self.ask(Option.LIST)
        found: list[Listed] = []
        while True:
            answer = await self.reply(Option.LIST)
            if answer.kind == Reply.ERR_UNSUP:
                await self.message(answer)
                return []
            if answer.is_error:
                raise refusal(answer.kind, Option.LIST, await self.message(answer))
            if answer.kind == Reply.ACK:
                _check_end(answer)
                return found
            _check_kind(answer, Reply.SERVER)
            found.append(await self._name(answer.length))

    async def _name(self, length: int) -> Listed:
        if length < 4:
            raise BlockyardError(f"incorrect option length {length}")
        size = await self.number(4, "option name length")
        rest = length - 4 - size
        if not 0 <= size <= MAX_STRING or rest < 0:
            raise BlockyardError("incorrect name length in server's list response")
        name = await self.stream.read(size, "export name")
        # A description that no server may send is not worth its memory.
        if rest > MAX_STRING:
            await self.stream.skip(rest, "export description")
            return Listed(_text(name))
        return Listed(_text(name), _text(await self.stream.read(rest, "export description")))

    async def _contexts(self, name: str) -> list[str]:
        option = Option.LIST_META_CONTEXT
        await self.ask(option, counted(encoded(name)) + struct.pack(">I", 0))
        found: list[str] = []
        while True:
            answer = await self.reply(option)
            if answer.is_error:
                await self.message(answer)
                return found
            if answer.kind == Reply.ACK:
                _check_end(answer)
                return found
            _check_kind(answer, Reply.META_CONTEXT)
            if not 4 < answer.length <= 4 + MAX_STRING:
                raise BlockyardError(
                    "Failed to negotiate meta context, server answered with unexpected length "
                    f"{answer.length}"
                )
            await self.number(4, "context id")
            found.append(_text(await self.stream.read(answer.length - 4, "context name")))

    async def _goodbye(self) -> None:
        """End the handshake; whatever the server says to that."""
        try:
            await self.ask(Option.ABORT)
        except BlockyardError:
            # It has hung up first.
            pass


def _check_end(answer: Answer) -> None:
    if answer.length:
        raise BlockyardError("length too long for option end")


def _check_kind(answer: Answer, wanted: Reply) -> None:
    if answer.kind != wanted:
        raise BlockyardError(
            f"Unexpected reply type {answer.kind} ({reply_name(answer.kind)}), "
            f"expected {wanted:d} ({reply_name(wanted)})"
        )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
