# SPDX-License-Identifier: Apache-2.0
"""Fuzz target of QMP's JSON parser.

pytest runs it on what hypothesis makes up; ``python test_fuzz_json.py`` under atheris.
"""

import sys

from hypothesis import example, given
from hypothesis import strategies as st

from blockyard.qmp.json import JsonError, JsonParser, dumps


def fuzz_one(data: bytes) -> None:
    """Any bytes give values and errors, the same ones however they are cut; nothing else."""
    cut = data[0] % max(len(data), 1) if data else 0
    whole, apart = JsonParser(), JsonParser()
    first = whole.feed(data) + whole.finish()
    second = apart.feed(data[:cut]) + apart.feed(data[cut:]) + apart.finish()
    assert [str(item) for item in first] == [str(item) for item in second]
    for item in first:
        if not isinstance(item, JsonError):
            assert dumps(item).isascii()
            assert dumps(item, pretty=True).isascii()


@given(st.binary(max_size=200))
@example(b'{"a": "\\ud83d\\ude00"} \xff{')
def test_any_bytes(data: bytes) -> None:
    fuzz_one(data)


@given(st.text(alphabet="{}[]:,\"'\\ua0dD81eE+-.tn \n\xff", max_size=60))
def test_nearly_json(text: str) -> None:
    fuzz_one(text.encode("latin-1"))


if __name__ == "__main__":
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
