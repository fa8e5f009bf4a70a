# SPDX-License-Identifier: Apache-2.0
"""The dispatcher: commands run one at a time, whichever monitor they came from."""

from __future__ import annotations

import logging
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import attrs

from blockyard.errors import BlockyardError, CommandNotFound, InvalidOption
from blockyard.qmp.command import CommandType, command_type
from blockyard.schema.order import dict_order, first_unvisited
from blockyard.schema.structure import dump, visit
from blockyard.trace import point

if TYPE_CHECKING:
    from blockyard.qmp.session import Session

__all__ = ["Dispatcher", "Request", "current", "error_reply"]

_log = logging.getLogger(__name__)
_COMMAND = point("qmp_command")


class Commands(Protocol):
    """The registry, as far as the dispatcher needs it."""

    def has(self, kind: str, name: str) -> bool:
        """Whether the name is known."""

    def find(self, kind: str, name: str) -> Any:
        """The declaration called ``name``."""


@attrs.define(eq=False, repr=False)
class Request:
    """A command on its way, and the descriptors that came with it."""

    session: Session
    message: Any
    fds: deque[int]
    #: Its client has gone; if it has not begun it will not.
    abandoned: bool = False
    reply: dict[str, Any] | None = None
    done: anyio.Event = attrs.field(factory=anyio.Event)

    def take_fd(self) -> int | None:
        """A descriptor that the client passed and nobody took yet; the caller's to close."""
        return self.fds.popleft() if self.fds else None


_current: ContextVar[Request | None] = ContextVar("blockyard_qmp_request", default=None)


def current() -> Request | None:
    """The request whose command is running, in that command; None in any other place."""
    return _current.get()


class Dispatcher:
    """Runs requests in the order in which they arrive.

    A monitor hands over one request at a time, so monitors take turns.  A command that
    has begun runs to its end even when its client has gone.
    """

    def __init__(self, yard: Any, commands: Commands) -> None:
        self._yard = yard
        self._commands = commands
        self._queue: deque[Request] = deque()
        self._wake = anyio.Event()

    async def run(self, request: Request) -> dict[str, Any]:
        """Wait for the request's turn, run it, and answer the reply to send."""
        self._queue.append(request)
        self._wake.set()
        try:
            await request.done.wait()
        finally:
            request.abandoned = True
        assert request.reply is not None
        return request.reply

    async def serve(self) -> None:
        """Run what comes, until cancelled; a command that has begun is finished first."""
        while True:
            self._wake = anyio.Event()
            while self._queue:
                request = self._queue.popleft()
                if not request.abandoned:
                    with anyio.CancelScope(shield=True):
                        request.reply = await self._reply(request)
                request.done.set()
                await anyio.lowlevel.checkpoint()
            await self._wake.wait()

    async def execute(self, name: str, arguments: dict[str, Any]) -> Any:
        """Run one command and answer its result as JSON.

        :raises BlockyardError: if there is no such command, the arguments are wrong, or it fails.
        """
        command = self.find(name)
        if command.args is None:
            if arguments:
                surplus = first_unvisited(list(arguments), ())
                raise InvalidOption(f"Parameter '{surplus}' is unexpected")
            args = None
        else:
            args = visit(command.args, arguments)
        result = await command.run(self._yard, args)
        return {} if command.returns is None else dump(result)

    def find(self, name: str) -> CommandType:
        """The command called ``name``.

        :raises CommandNotFound: if there is none.
        :raises UnknownPlugin: if its plugin cannot be imported.
        """
        if not self._commands.has("commands", name):
            raise CommandNotFound(f"The command {name} has not been found")
        return command_type(self._commands.find("commands", name))

    async def _reply(self, request: Request) -> dict[str, Any]:
        token = _current.set(request)
        try:
            name = command_name(request.message, oob=request.session.oob)
            _COMMAND("%s monitor=%s", name, request.session.name)
            if not request.session.negotiated and name != "qmp_capabilities":
                raise CommandNotFound("Expecting capabilities negotiation with 'qmp_capabilities'")
            result = await self.execute(name, request.message.get("arguments", {}))
        except BlockyardError as error:
            return error_reply(error, request.message)
        except Exception as error:
            _log.exception("a command failed unexpectedly")
            return error_reply(
                BlockyardError(f"Internal error: {type(error).__name__}: {error}"), request.message
            )
        finally:
            _current.reset(token)
        return _with_id({"return": result}, request.message)


def error_reply(error: BlockyardError, message: Any = None) -> dict[str, Any]:
    """The reply to ``message`` that says ``error``."""
    body = {"error": {"class": error.qmp_class, "desc": str(error)}}
    identified = _with_id({}, message)
    return {**identified, **body}


def command_name(message: Any, *, oob: bool) -> str:
    """The name in a request, the rest of which is in order (qmp-spec, "Issuing Commands").

    :raises InvalidOption: if it is no request.
    """
    if not isinstance(message, dict):
        raise InvalidOption("QMP input must be a JSON object")
    key = None
    for name in dict_order(list(message)):
        value = message[name]
        if name == "execute" or (name == "exec-oob" and oob):
            if not isinstance(value, str):
                raise InvalidOption(f"QMP input member '{name}' must be a string")
            if key:
                raise InvalidOption(f"QMP input member '{name}' clashes with '{key}'")
            key = name
        elif name == "arguments":
            if not isinstance(value, dict):
                raise InvalidOption("QMP input member 'arguments' must be an object")
        elif name != "id":
            raise InvalidOption(f"QMP input member '{name}' is unexpected")
    if key is None:
        raise InvalidOption("QMP input lacks member 'execute'")
    return str(message[key])


def _with_id(reply: dict[str, Any], message: Any) -> dict[str, Any]:
    if isinstance(message, dict) and "id" in message:
        reply["id"] = message["id"]
    return reply
