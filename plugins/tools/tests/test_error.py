# SPDX-License-Identifier: Apache-2.0
"""How programs end when they cannot go on."""

import pytest

from blockyard_tools.error import ProgramError


def test_the_text_comes_behind_the_name_that_scripts_know(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ProgramError("qemu-img", "Could not open 'a'", status=2).report() == 2
    assert capsys.readouterr().err == "qemu-img: Could not open 'a'\n"


def test_nothing_is_printed_when_all_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert ProgramError("qemu-img").report() == 1
    assert capsys.readouterr().err == ""
