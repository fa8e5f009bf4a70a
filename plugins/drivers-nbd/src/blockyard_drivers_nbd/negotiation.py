# SPDX-License-Identifier: Apache-2.0
"""The handshake before transmission: which export, and how it will be spoken to.

In the order of NetworkBlockDevice/nbd ``doc/proto.md``: extended headers or structured
replies, the metadata context, then GO, or EXPORT_NAME where the server knows no GO.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from blockyard.errors import BlockyardError
from blockyard_drivers_nbd.conversation import Answer, Conversation, counted, encoded
from blockyard_drivers_nbd.information import Export
from blockyard_drivers_nbd.wire import (
    MAX_STRING,
    HandshakeFlag,
    Mode,
    Option,
    Reply,
    reply_name,
)

if TYPE_CHECKING:
    from blockyard_drivers_nbd.stream import ServerStream

__all__ = ["check_names", "negotiate"]


def check_names(export: str, context: str | None) -> None:
    """Refuse names that no server can be told.

    :raises BlockyardError: with QEMU's text.
    """
    if len(encoded(export)) > MAX_STRING:
        raise BlockyardError("export name too long to send to server")
    if context is not None and len(encoded(context)) > MAX_STRING:
        raise BlockyardError("x-dirty-bitmap query too long to send to server")


async def negotiate(stream: ServerStream, export: str, context: str | None) -> Export:
    """Choose ``export`` and answer what it is; transmission begins with the next byte.

    ``context`` is the metadata context that is asked for; the answer has ``context_id``
    None if the server does not have it.  With None replies stay simple.

    :raises BlockyardError: if the server refuses, breaks the protocol, or goes away.
    """
    asked = None if context is None else encoded(context)
    return await _Negotiation(stream, name=encoded(export), context=asked).run()


@attrs.define(eq=False, repr=False, kw_only=True)
class _Negotiation(Conversation):
    name: bytes
    context: bytes | None
    context_id: int | None = None

    async def run(self) -> Export:
        given = await self.greeting()
        if given is None:
            if self.name:
                raise BlockyardError("Server does not support non-empty export names")
            return await self.only_export()
        if given & HandshakeFlag.FIXED_NEWSTYLE:
            if self.context is not None:
                await self.agree_on_replies()
                if self.mode != Mode.SIMPLE:
                    await self._ask_for_context(self.context)
            if export := await self.informed(Option.GO, self.name):
                return self._complete(export)
        return await self._export_name(given)

    # -- the metadata context

    async def _ask_for_context(self, context: bytes) -> None:
        option = Option.SET_META_CONTEXT
        await self.ask(option, counted(self.name) + struct.pack(">I", 1) + counted(context))
        while True:
            answer = await self.reply(option)
            if answer.is_error:
                await self.message(answer)
                self.context_id = None
                return
            if answer.kind == Reply.ACK:
                if answer.length:
                    raise BlockyardError("Unexpected length to ACK response")
                return
            if self.context_id is not None:
                raise BlockyardError("Server answered with more than one context")
            self.context_id = await self._context(answer, context)

    async def _context(self, answer: Answer, context: bytes) -> int:
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
        found = await self.number(4, "context id")
        name = await self.stream.read(answer.length - 4, "context name")
        if name != context:
            raise BlockyardError(
                f"Failed to negotiate meta context '{context.decode(errors='replace')}', "
                f"server answered with different context '{name.decode(errors='replace')}'"
            )
        return found

    # -- the export

    async def _export_name(self, given: HandshakeFlag) -> Export:
        """EXPORT_NAME, to which a server says no by hanging up."""
        await self.ask(Option.EXPORT_NAME, self.name)
        size = await self.number(8, "export length")
        flags = await self.number(2, "export flags")
        if not given & HandshakeFlag.NO_ZEROES:
            await self.stream.skip(124, "reserved block")
        return self._complete(Export(size=size, flags=flags))

    def _complete(self, export: Export) -> Export:
        return attrs.evolve(export, mode=self.mode, context_id=self.context_id)
