# SPDX-License-Identifier: Apache-2.0
"""Running the checks."""

import random
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import anyio

from blockyard.testing.case import Case
from blockyard.testing.check import Check, NotApplicableError, checks
from blockyard.testing.report import Outcome, Report
from blockyard.testing.subject import Make, Subject
from blockyard.yard import Yard

__all__ = ["check_conformance", "run_conformance", "run_one"]

#: Seconds after which a check counts as hung.
TIME_LIMIT = 60.0


def run_conformance(
    subject: Subject | Make,
    *,
    backend: str = "asyncio",
    without_ring: bool = False,
    only: Callable[[Check], bool] = lambda check: True,
) -> Report:
    """Run the whole contract, each check on a fresh image; a bare factory will do.

    ``backend`` is the event loop of the control half, ``"asyncio"`` or ``"trio"``;
    ``without_ring`` runs the native half on epoll instead of io_uring.
    """
    chosen = filter(only, checks())
    return anyio.run(check_conformance, subject, chosen, without_ring, backend=backend)


async def check_conformance(
    subject: Subject | Make,
    chosen: Iterable[Check] | None = None,
    without_ring: bool = False,
) -> Report:
    """:func:`run_conformance` for programs that have an event loop already."""
    real = subject if isinstance(subject, Subject) else Subject(make=subject)
    outcomes = [await run_one(c, real, without_ring) for c in chosen or checks()]
    return Report(tuple(outcomes))


async def run_one(check: Check, subject: Subject, without_ring: bool = False) -> Outcome:
    """One check.  It never raises: whatever happens is in the outcome."""
    try:
        with anyio.fail_after(TIME_LIMIT):
            await _run(check, subject, without_ring)
    except Exception as error:
        # The driver's faults are what is looked for.
        return _outcome(check, _innermost(error))
    return Outcome(check.subject, check.name, "passed")


def _outcome(check: Check, error: BaseException) -> Outcome:
    if isinstance(error, NotApplicableError):
        return Outcome(check.subject, check.name, "skipped", str(error))
    return Outcome(check.subject, check.name, "failed", _describe(error))


def _innermost(error: BaseException) -> BaseException:
    """Of several faults at once the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _run(check: Check, subject: Subject, without_ring: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="blockyard-check-") as folder:
        async with Yard(registry=subject.registry, without_ring=without_ring) as yard:
            case = Case(subject, yard, Path(folder), random.Random(subject.seed))  # noqa: S311
            await case.start()
            try:
                _applies(check, case)
                await check.function(case)
            finally:
                await case.close()


def _applies(check: Check, case: Case) -> None:
    if check.writes and case.node.read_only:
        raise NotApplicableError("the node is read-only")
    if check.stores and not case.subject.stores:
        raise NotApplicableError("the driver does not keep what is written")


def _describe(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"did not end in {TIME_LIMIT:g} seconds"
    return f"{type(error).__name__}: {error}"
