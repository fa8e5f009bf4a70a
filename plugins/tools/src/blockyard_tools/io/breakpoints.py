# SPDX-License-Identifier: Apache-2.0
"""Requests that are stopped at debug events, by a node that was made for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio

from blockyard.errors import BlockyardError
from blockyard_tools.io.failure import Failed

if TYPE_CHECKING:
    from blockyard_tools.io.session import Session

__all__ = ["break_", "remove_break", "resume", "wait_break"]

#: Seconds between two looks at whether a request has stopped.
_LOOK = 0.002


def _why(error: BlockyardError) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)


async def break_(session: Session, arguments: list[str]) -> bool:
    """Stop the next request at an event."""
    try:
        session.image.node.driver.debug_breakpoint(arguments[0], arguments[1])
    except BlockyardError as error:
        raise Failed(f"Could not set breakpoint: {_why(error)}") from error
    return True


async def remove_break(session: Session, arguments: list[str]) -> bool:
    """Take a breakpoint away."""
    try:
        session.image.node.driver.debug_remove_breakpoint(arguments[0])
    except BlockyardError as error:
        raise Failed(f"Could not remove breakpoint {arguments[0]}: {_why(error)}") from error
    return True


async def resume(session: Session, arguments: list[str]) -> bool:
    """Let a stopped request go on."""
    try:
        session.image.node.driver.debug_resume(arguments[0])
    except BlockyardError as error:
        raise Failed(f"Could not resume request: {_why(error)}") from error
    return True


async def wait_break(session: Session, arguments: list[str]) -> bool:
    """Wait until a request has been stopped."""
    try:
        while not session.image.node.driver.debug_is_suspended(arguments[0]):
            await anyio.sleep(_LOOK)
    except BlockyardError as error:
        raise Failed(f"Could not wait for request: {_why(error)}") from error
    return True
