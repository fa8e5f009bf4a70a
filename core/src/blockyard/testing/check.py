# SPDX-License-Identifier: Apache-2.0
"""What a check is, and the list of all of them."""

import errno
import importlib
import os
from collections.abc import Awaitable, Callable

import attrs

from blockyard.errors import BlockyardError
from blockyard.testing.case import Case

__all__ = [
    "Check",
    "ContractError",
    "NotApplicableError",
    "check",
    "checks",
    "expect",
    "expect_bytes",
    "refused",
    "served",
]


class ContractError(AssertionError):
    """Raised when the driver broke the contract; the text says how."""


class NotApplicableError(Exception):
    """Raised when a check does not apply; the text says why."""


Function = Callable[[Case], Awaitable[None]]


@attrs.frozen
class Check:
    """One check: its subject, its name, what it holds the driver to, and the code."""

    subject: str
    name: str
    doc: str
    function: Function
    writes: bool
    stores: bool


_CHECKS: list[Check] = []
#: One module for each subject, in the order in which they run.
_MODULES = (
    "limits",
    "data",
    "boundaries",
    "zeroes",
    "status",
    "concurrency",
    "drain",
    "loops",
    "cancellation",
    "resize",
    "life",
    "errors",
)


def check(*, writes: bool = False, stores: bool = False) -> Callable[[Function], Function]:
    """Register a check.

    ``writes`` asks for a writable node, ``stores`` also for one that gives back
    what was written; without that the check is skipped.
    """

    def register(function: Function) -> Function:
        module = function.__module__.rpartition(".")[2].removeprefix("check_")
        doc = (function.__doc__ or "").strip().split("\n")[0]
        name = getattr(function, "__name__", "")
        _CHECKS.append(Check(module, name, doc, function, writes or stores, stores))
        return function

    return register


def checks() -> tuple[Check, ...]:
    """Every check there is."""
    for name in _MODULES:
        importlib.import_module(f"blockyard.testing.check_{name}")
    return tuple(_CHECKS)


def expect(holds: bool, text: str) -> None:
    """Raise ContractError unless it holds."""
    if not holds:
        raise ContractError(text)


def expect_bytes(found: bytes | bytearray, wanted: bytes | bytearray, where: int = 0) -> None:
    """Raise ContractError, naming the first byte that differs, unless both are equal."""
    expect(len(found) == len(wanted), f"{len(found)} bytes instead of {len(wanted)}")
    if found != wanted:
        at = next(i for i in range(len(wanted)) if found[i] != wanted[i])
        expect(False, f"byte {where + at} is {found[at]:#04x} instead of {wanted[at]:#04x}")


async def refused(work: Awaitable[object], what: str, *errnos: int) -> None:
    """Raise ContractError unless ``work`` fails, with one of these errnos if any are given."""
    try:
        await work
    except BlockyardError as error:
        found = getattr(error, "errno", None)
        names = ", ".join(errno.errorcode[number] for number in errnos)
        expect(not errnos or found in errnos, f"{what} failed with '{error}', not {names}")
        return
    raise ContractError(f"{what} succeeded")


async def served(work: Awaitable[object], what: str) -> None:
    """Await ``work``; skip the check when the driver does not serve it."""
    try:
        await work
    except BlockyardError as error:
        if getattr(error, "errno", None) in (errno.ENOTSUP, errno.EOPNOTSUPP):
            raise NotApplicableError(f"{what}: {os.strerror(errno.ENOTSUP)}") from None
        raise
