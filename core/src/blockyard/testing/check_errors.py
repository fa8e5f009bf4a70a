# SPDX-License-Identifier: Apache-2.0
"""Checks of what is refused."""

import os
from typing import Any

from blockyard.errors import BlockyardError
from blockyard.testing.case import Case
from blockyard.testing.check import NotApplicableError, check, expect

__all__ = ["bad_options_are_refused", "unknown_options_are_refused"]


async def _refused_cleanly(case: Case, options: dict[str, Any]) -> str:
    """Open, expect an error with a text; the node's name and descriptors stay free."""
    await case.close()
    before = len(os.listdir("/proc/self/fd"))
    try:
        case.node = await case.yard.open({"node-name": "subject", **options})
    except BlockyardError as error:
        expect(str(error) != "", f"the error for {options} says nothing")
        expect(len(os.listdir("/proc/self/fd")) <= before, "a descriptor stayed open")
        return str(error)
    expect(False, f"{options} were accepted")
    return ""


@check()
async def unknown_options_are_refused(case: Case) -> None:
    """An option that the driver does not declare is refused by name."""
    text = await _refused_cleanly(case, {**case.options, "no-such-option": 1})
    expect("no-such-option" in text, f"'{text}' does not name the option")
    await case.reopen()


@check()
async def bad_options_are_refused(case: Case) -> None:
    """What the subject lists as refused is, with nothing left behind."""
    if not case.subject.refused:
        raise NotApplicableError("the subject lists nothing")
    for options in case.subject.refused:
        await _refused_cleanly(case, options)
    await case.reopen()
