# SPDX-License-Identifier: Apache-2.0
"""One client's QMP session: from the greeting until it has gone (qmp-spec)."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio

from blockyard.errors import BlockyardError, CommandNotFound, InvalidOption
from blockyard.qmp.dispatcher import Dispatcher, Request, command_name, error_reply
from blockyard.qmp.json import JsonParser, dumps
from blockyard.qmp.stream import Outbox, Stream
from blockyard.trace import point

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from blockyard.qmp.event import EventBus

__all__ = ["CAPABILITIES", "Session"]

#: What the greeting offers.
CAPABILITIES = ("oob",)

#: In-band commands that may wait with oob ("at most eight in-band commands in flight").
_QUEUE = 8
#: Unsent bytes above which no further command is read.
_BACK_PRESSURE = 64 << 10
#: Unsent bytes above which a client has stopped reading for good: events would fill memory.
_GIVE_UP = 4 << 20

_BEGIN = point("qmp_session_begin")
_END = point("qmp_session_end")
_REPLY = point("qmp_reply")
_EVENT = point("qmp_event")

_Chunk = tuple[bytes, list[int]]


class Session:
    """The protocol's state for one client.

    Without oob, the next command is read when the last one has been answered; with it,
    up to eight wait and exec-oob overtakes them.  A client that does not read its
    replies is not asked for more commands; one that does not read its events is
    disconnected before they fill memory.
    """

    def __init__(
        self,
        stream: Stream,
        dispatcher: Dispatcher,
        events: EventBus,
        version: dict[str, Any],
        *,
        name: str = "monitor",
        pretty: bool = False,
    ) -> None:
        self.name = name
        #: The client may send exec-oob.
        self.oob = False
        #: The client has negotiated capabilities.
        self.negotiated = False
        self._stream = stream
        self._dispatcher = dispatcher
        self._events = events
        self._version = version
        self._pretty = pretty
        self._outbox = Outbox()
        self._queue: deque[Request] = deque()
        self._changed = anyio.Event()
        self._fds: deque[int] = deque()
        self._scope = anyio.CancelScope()

    def enable(self, capabilities: list[str]) -> None:
        """Leave negotiation mode, with these capabilities; events are delivered from now on.

        :raises CommandNotFound: if that has been done already.
        """
        if self.negotiated:
            raise CommandNotFound("Capabilities negotiation is already complete, command ignored")
        self.oob = "oob" in capabilities
        self.negotiated = True

    async def run(self) -> None:
        """Serve the client until it goes; closes the stream."""
        _BEGIN("monitor=%s", self.name)
        unsubscribe = self._events.subscribe(self._event)
        sending, receiving = anyio.create_memory_object_stream[_Chunk](1)
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._write)
                    tasks.start_soon(self._execute)
                    tasks.start_soon(self._read, sending)
                    self._say({"QMP": {"version": self._version, "capabilities": [*CAPABILITIES]}})
                    await self._parse(receiving)
                    await self._until(lambda: not self._queue)
                    await self._outbox.below(1)
                    self._scope.cancel()
        finally:
            _END("monitor=%s", self.name)
            unsubscribe()
            sending.close()
            receiving.close()
            self._close_fds(self._fds)
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()

    async def finish(self, seconds: float) -> None:
        """Give what was said so many seconds to arrive, then end the session."""
        with anyio.move_on_after(seconds):
            await self._until(lambda: not self._queue)
            await self._outbox.below(1)
        self._scope.cancel()

    # -- what the client says

    async def _read(self, sending: MemoryObjectSendStream[_Chunk]) -> None:
        """Read ahead a little, so that a client that goes is noticed while a command runs."""
        try:
            async with sending:
                while chunk := await self._receive():
                    await sending.send(chunk)
        except OSError:
            self._scope.cancel()

    async def _receive(self) -> _Chunk | None:
        await self._outbox.below(_BACK_PRESSURE)
        data, fds = await self._stream.receive()
        if data:
            return data, fds
        if self._stream.hung_up():
            self._scope.cancel()
        return None

    async def _parse(self, receiving: MemoryObjectReceiveStream[_Chunk]) -> None:
        parser = JsonParser()
        async for data, fds in receiving:
            if fds:
                self._replace_fds(fds)
            for value in parser.feed(data):
                await self._accept(value)

    async def _accept(self, value: Any) -> None:
        """Queue a request, then wait until there is room for another."""
        if isinstance(value, dict) and "exec-oob" in value and "execute" not in value:
            self._say(error_reply(self._refuse_oob(value), value))
            return
        self._queue.append(Request(self, value, self._fds))
        self._notify()
        await self._until(lambda: len(self._queue) < (_QUEUE if self.oob else 1))
        await self._outbox.below(_BACK_PRESSURE)

    def _refuse_oob(self, message: dict[str, Any]) -> BlockyardError:
        """Why an exec-oob is refused: no command here allows it."""
        try:
            name = command_name(message, oob=self.oob)
            if not self.negotiated:
                raise CommandNotFound("Expecting capabilities negotiation with 'qmp_capabilities'")
            self._dispatcher.find(name)
        except BlockyardError as error:
            return error
        return InvalidOption(f"The command {name} does not support OOB")

    # -- running it

    async def _execute(self) -> None:
        while True:
            await self._until(lambda: bool(self._queue))
            request = self._queue[0]
            if isinstance(request.message, BlockyardError):
                self._say(error_reply(request.message))
            else:
                self._say(await self._dispatcher.run(request))
            self._queue.popleft()
            self._drop_fds(request.fds)
            self._notify()

    # -- what it is told

    def _say(self, message: dict[str, Any]) -> None:
        encoded = _encode(message, self._pretty)
        _REPLY("monitor=%s bytes=%d", self.name, len(encoded))
        self._outbox.put(encoded)

    def _event(self, message: dict[str, Any]) -> None:
        if not self.negotiated:
            return
        _EVENT("%s monitor=%s", message["event"], self.name)
        self._say(message)
        if self._outbox.size > _GIVE_UP:
            self._scope.cancel()

    async def _write(self) -> None:
        try:
            await self._outbox.serve(self._stream)
        except OSError:
            self._scope.cancel()

    # -- descriptors

    def _replace_fds(self, fds: list[int]) -> None:
        """New descriptors; those that came before and that no waiting command may take go."""
        old, self._fds = self._fds, deque(fds)
        if all(request.fds is not old for request in self._queue):
            self._close_fds(old)

    def _drop_fds(self, fds: deque[int]) -> None:
        if fds is not self._fds and all(request.fds is not fds for request in self._queue):
            self._close_fds(fds)

    @staticmethod
    def _close_fds(fds: deque[int]) -> None:
        while fds:
            os.close(fds.popleft())

    # -- waiting

    async def _until(self, condition: Any) -> None:
        while not condition():
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _encode(message: dict[str, Any], pretty: bool) -> bytes:
    """ASCII, each line ended by CR LF."""
    return (dumps(message, pretty=pretty).replace("\n", "\r\n") + "\r\n").encode("ascii")
