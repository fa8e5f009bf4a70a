# SPDX-License-Identifier: Apache-2.0
"""Declaring QMP commands.

A command is an ``async`` function of the yard and the structured arguments::

    @command("query-version", returns=VersionInfo)
    async def query_version(yard: Yard, args: None) -> VersionInfo: ...

and an entry point in the group ``blockyard.commands`` whose name is the command's.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import attrs

__all__ = ["CommandType", "command", "command_type"]

_F = TypeVar("_F", bound=Callable[..., Awaitable[Any]])


@attrs.frozen(eq=False, repr=False, kw_only=True)
class CommandType:
    """What dispatcher and introspection know of a command."""

    #: Its name on the wire.
    name: str
    #: The struct or union of its arguments; None when it takes none.
    args: Any = None
    #: The type of what it returns, any annotation of the schema; None for ``{}``.
    returns: Any = None
    #: QAPI features, for example ``("unstable",)``.
    features: tuple[str, ...] = ()
    #: Called with the yard and the structured arguments (None without ``args``).
    run: Callable[[Any, Any], Awaitable[Any]]


def command(
    name: str, *, args: Any = None, returns: Any = None, features: tuple[str, ...] = ()
) -> Callable[[_F], _F]:
    """Declare the decorated ``async def f(yard, args)`` as the QMP command ``name``.

    It raises a :class:`~blockyard.errors.BlockyardError` to refuse, and then has left
    nothing behind; it is never cancelled by its client's disconnection.
    """

    def decorate(function: _F) -> _F:
        record = CommandType(name=name, args=args, returns=returns, features=features, run=function)
        function.__qmp_command__ = record  # type: ignore[attr-defined]
        return function

    return decorate


def command_type(function: Any) -> CommandType:
    """The record that :func:`command` left on a function.

    :raises TypeError: if it is not a command.
    """
    record = getattr(function, "__qmp_command__", None)
    if not isinstance(record, CommandType):
        raise TypeError(f"{function!r} is not declared with @command")
    return record
