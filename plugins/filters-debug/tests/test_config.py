# SPDX-License-Identifier: Apache-2.0
"""The rules file of blkdebug: what it may hold, and what QEMU says of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.errors import BlockyardError, InvalidOption
from blockyard_filters_debug.config import parse_config

if TYPE_CHECKING:
    from pathlib import Path

RULE = '[inject-error]\nevent = "none"\n'
BAD = [
    "x\n",
    '[foo]\na = "b"\n',
    "[foo]\n",
    "[inject-error]\n",
    '[inject-error]\nevent = "bad"\n',
    '[inject-error]\nerrno = "5"\n',
    '[inject-error]\nevent = "write_aio"\nstate = "abc"\n',
    '[inject-error]\nevent = "write_aio"\nbad = "abc"\n',
    "[inject-error]\nevent = write_aio\n",
    "[inject-error\n",
    '[inject-error]\nevent = "write_aio"\nonce = "maybe"\n',
    '[inject-error]\nevent = "write_aio"\niotype = "foo"\n',
    '[set-state]\nevent = "write_aio"\nstate="1"\n',
    "  \n" + RULE,
    RULE + "  # a comment begins in the first column\n",
    RULE + 'state = "99999999999999999999"\n',
    RULE + "bad\n",
    "=\n",
    "[]\n",
    '[ inject-error ]\nevent = "none"\n',
    RULE + 'x = "1"\nstate = "z"\n',
    '[inject-error "a"]\nevent = "none"\n[inject-error "a"]\nevent = "none"\n',
]


@pytest.mark.parametrize("text", BAD)
def test_files_that_qemu_does_not_understand(
    text: str, qemu: Any, image: Path, tmp_path: Path
) -> None:
    config = tmp_path / "rules"
    config.write_text(text)
    said = "\n".join(qemu.io(f"blkdebug:{config}:{image}"))

    with pytest.raises(InvalidOption) as raised:
        parse_config(text)

    prefix = f"qemu-io: can't open device blkdebug:{config}:{image}: "
    assert said.removeprefix(prefix).strip() == str(raised.value).strip()


def test_a_file_with_everything() -> None:
    text = (
        '# comment\n\n[inject-error "first"] behind\nevent = "l2_load" junk\n'
        'errno = "28"\nonce = "on"\nimmediately = "no"\nsector = "0x10"\nstate = "-1"\n'
        'iotype = "write-zeroes"\ndelay-ns = "5"\n'
        '[set-state]\nevent = "none"\n  new_state = "07"\nevent = "write_aio"\n'
    )

    first, second = parse_config(text)

    assert first.kind == "inject-error"
    assert first.values == {
        "event": "l2_load",
        "errno": 28,
        "once": True,
        "immediately": False,
        "sector": 16,
        "state": -1,
        "iotype": "write-zeroes",
        "delay-ns": 5,
    }
    assert second.kind == "set-state"
    assert second.values == {"event": "write_aio", "new_state": 7}


def test_long_lines_are_cut_as_fgets_cuts_them() -> None:
    with pytest.raises(InvalidOption, match=r"^Invalid parameter 'y{63}'$"):
        parse_config(RULE + 'errno = "5"' + " " * 1012 + "y" * 80 + "\n")


@given(st.text(max_size=300))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        sections = parse_config(text)
    except BlockyardError:
        return
    assert all("event" in section.values for section in sections)
