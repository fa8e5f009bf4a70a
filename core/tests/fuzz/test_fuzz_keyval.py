# SPDX-License-Identifier: Apache-2.0
"""Fuzz target of the command line's keyval parser and its visitor.

pytest runs it on what hypothesis makes up; ``python test_fuzz_keyval.py`` under atheris.
"""

import sys
from contextlib import suppress
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from blockyard.errors import BlockyardError
from blockyard.schema import keyval, visit_text
from blockyard.schema.chardev import ChardevBackend
from blockyard.schema.control import MonitorOptions
from blockyard.schema.sockets import SocketAddress

ANNOTATIONS = (MonitorOptions, SocketAddress, ChardevBackend)


def fuzz_one(data: bytes) -> None:
    """Any text is read or refused with a sentence; nothing else."""
    text = data.decode("utf-8", "surrogateescape")
    for read in (_parse, *(partial(visit_text, annotation) for annotation in ANNOTATIONS)):
        with suppress(BlockyardError):
            read(text, "chardev")


def _parse(text: str, implied: str) -> None:
    keyval.parse_with_help(text, implied)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    fuzz_one(data)


@given(st.text(alphabet='chardevtyp.=,01{}":?help_-', max_size=60))
def test_nearly_keyval(text: str) -> None:
    fuzz_one(text.encode())


if __name__ == "__main__":
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
