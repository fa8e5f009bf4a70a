# SPDX-License-Identifier: Apache-2.0
"""Running a program's work: a yard around it, flushed and closed however it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Concatenate

    from blockyard.daemon.tracing import Tracing
    from blockyard.yard import Yard

__all__ = ["run", "run_in_yard", "tracing"]

#: What ``-T`` has turned on; each yard that is made afterwards takes part.
tracing: Tracing | None = None

_P = ParamSpec("_P")
_T = TypeVar("_T")


def run(
    program: Callable[Concatenate[Yard, _P], Awaitable[_T]], *args: _P.args, **more: _P.kwargs
) -> _T:
    """Run ``await program(yard, *args, **more)`` with a yard of its own; answers its result.

    What it raises comes out after the yard was closed: what had been written is
    flushed.  SIGINT cancels it and comes out as KeyboardInterrupt, which the console
    script tells as the status 130; SIGTERM ends the process as it always does.
    """
    import anyio

    return anyio.run(run_in_yard, lambda yard: program(yard, *args, **more))


async def run_in_yard(body: Callable[[Yard], Awaitable[_T]]) -> _T:
    """``await body(yard)`` inside a new yard, for programs with an event loop of their own."""
    from blockyard.yard import Yard

    async with Yard() as yard:
        if tracing is not None:
            tracing.attach(yard)
        return await body(yard)
