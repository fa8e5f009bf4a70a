# SPDX-License-Identifier: Apache-2.0
"""QMP's JSON: the dialect, the limits, the sentences, and that chunks do not matter.

``json_errors.json`` holds what qemu-storage-daemon 11.1 answered to each text, sent
after ``{"execute":"qmp_capabilities"}``: a sentence, or null where a value was complete.
"""

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.qmp.json import JsonError, JsonParser, dumps, parse
from blockyard.schema import jsonlexer

QSD = os.environ.get("BLOCKYARD_QSD") or shutil.which("qemu-storage-daemon")
RECORDED = json.loads(Path(__file__).with_name("json_errors.json").read_text())
GREETING = b'{"execute":"qmp_capabilities"}'
MARK = b'\xff\n{"execute":"query-version","id":"S"}'
NESTING = 1024

ATOMS = [*b"{}[]:,", b'"a"', b"'b'", b"1", b"-", b"0", b"1.5", b"e3", b"true", b"nul", b" ", b"\n"]
ATOMS = [bytes([a]) if isinstance(a, int) else a for a in ATOMS]
ATOMS += [b"\\", b'"', b"'", b'"\\ud83d\\ude00"', b'"\\ud800"', b'"\xc3\xa9"', b"\xff", b"\0", b"%"]
ATOMS += [b'{"x":1}\n', b'{"a":1,"a":2}', b"\r", b"\t", b'"\xed\xa0\x80"', b"9" * 25, b"@"]
texts = st.lists(st.sampled_from(ATOMS), max_size=12).map(b"".join)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cn"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="ascii")), inner),
    max_leaves=20,
)


def said(found: list[Any]) -> list[str | None]:
    return [str(item) if isinstance(item, JsonError) else None for item in found]


def fed(*chunks: bytes) -> list[Any]:
    parser = JsonParser()
    return [item for chunk in chunks for item in parser.feed(chunk)] + parser.finish()


def test_errors_are_those_that_qemu_gave() -> None:
    for text, theirs in RECORDED:
        parser = JsonParser()
        parser.feed(GREETING)
        ours = said(parser.feed(text.encode("latin-1") + MARK))

        assert (text, [*theirs, None]) == (text, ours)


@pytest.fixture(scope="module")
def daemon() -> Iterator["subprocess.Popen[bytes]"]:
    if not QSD:
        pytest.skip("no qemu-storage-daemon here")
    command = [QSD, "--chardev", "stdio,id=m", "--monitor", "m"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        greeting = json.loads(process.stdout.readline())
        process.stdin.write(GREETING)
        process.stdin.flush()
        process.stdout.readline()
        if greeting["QMP"]["version"]["qemu"]["major"] >= 11:
            yield process
        process.kill()
        process.stdout.read()
        if greeting["QMP"]["version"]["qemu"]["major"] < 11:
            pytest.skip("before version 11 QEMU's errors named no line and column")


def answers(daemon: "subprocess.Popen[bytes]", text: bytes) -> list[str | None]:
    assert daemon.stdin
    assert daemon.stdout
    daemon.stdin.write(text + MARK)
    daemon.stdin.flush()
    found: list[str | None] = []
    while (answer := json.loads(daemon.stdout.readline())).get("id") != "S":
        desc = answer.get("error", {}).get("desc", "")
        found.append(desc if "JSON" in desc and "QMP input" not in desc else None)
    return found


def test_errors_equal_a_real_daemons(daemon: "subprocess.Popen[bytes]") -> None:
    parser = JsonParser()
    parser.feed(GREETING)

    @settings(max_examples=300, deadline=None)
    @given(texts)
    def compare(text: bytes) -> None:
        assert [*answers(daemon, text), None] == said(parser.feed(text + MARK))

    compare()


@given(texts, st.lists(st.integers(0, 60), max_size=5))
def test_chunks_make_no_difference(text: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[start:end] for start, end in itertools.pairwise(edges)]
    whole, apart, bytewise = fed(text), fed(*chunks), fed(*(bytes([b]) for b in text))

    assert said(whole) == said(apart) == said(bytewise)
    assert repr(whole) == repr(apart) == repr(bytewise)


@given(values)
def test_what_is_written_is_read_again(value: Any) -> None:
    expected = json.loads(json.dumps(value))
    for pretty in (False, True):
        text = dumps(value, pretty=pretty)

        assert text.isascii()
        assert expected == parse(f"[{text}]".encode())[0]


@given(st.dictionaries(st.text(st.characters(codec="ascii"), max_size=3), values, max_size=4))
def test_both_ways_in_agree(value: dict[str, Any]) -> None:
    line = json.dumps(value).encode()

    assert fed(line + b"\n") == fed(b" " + line[:1], line[1:])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"{'a': 'b\"c'}", {"a": 'b"c'}),
        (b'"\\u00e9\\ud83d\\ude00\\/\\\'"', "é\U0001f600/'"),
        (b'"\xc0\x80\\u0000"', "\0\0"),
        (b"18446744073709551615 ", 2**64 - 1),
        (b"-9223372036854775808 ", -(2**63)),
        (b"18446744073709551616 ", 2.0**64),
        (b"1E+2 ", 100.0),
        (b"[true, false, null]", [True, False, None]),
    ],
)
def test_dialect(text: bytes, value: Any) -> None:
    assert [value] == fed(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "Expecting a JSON value"),
        (b"{} {}", "Expecting at most one JSON value"),
        (b"{}}", "Expecting at most one JSON value"),
        (b"{", "1:2: JSON parse error, premature end of input"),
        (b'{"a":1', "1:8: JSON parse error, premature end of input"),
        (b'{"a":1 ', "1:8: JSON parse error, premature end of input"),
        (b'{"a":\n', "2:1: JSON parse error, premature end of input"),
        (b'{"a":tr', "1:6: JSON parse error, invalid keyword 'tr'"),
        (b'{"a":-', "1:6: JSON parse error, stray '-'"),
        (b'{"x', "1:2: JSON parse error, stray '\"x'"),
    ],
)
def test_an_options_json_is_one_value(text: bytes, sentence: str) -> None:
    with pytest.raises(JsonError) as error:
        parse(text)

    assert sentence == str(error.value)


def test_nesting_ends_at_the_limit() -> None:
    deepest = b"[" * NESTING + b"]" * NESTING
    too_deep = b"[" + deepest + b"]"

    assert said(fed(deepest)) == [None]
    assert said(fed(too_deep + b" 1 ")) == ["JSON nesting depth limit exceeded", None]


def test_deep_values_are_written() -> None:
    (value,) = fed(b'{"a":' * NESTING + b"1" + b"}" * NESTING)

    assert dumps(value).encode() == b'{"a": ' * NESTING + b"1" + b"}" * NESTING


def test_tokens_end_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlexer, "MAX_TOKENS", 100)
    many = b"[" + b"1," * 60 + b"1]"

    assert said(fed(b"[" + b"1," * 48 + b"1]")) == [None]
    assert said(fed(many + b" 2 ")) == ["JSON token count limit exceeded", None]


def test_a_token_ends_at_the_limit() -> None:
    parser = JsonParser()
    found = parser.feed(b'{"a": "')
    chunk = b"x" * (1 << 20)
    for _ in range(65):
        found += parser.feed(chunk)

    assert said(found) == ["JSON token size limit exceeded"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"return": {}}, '{"return": {}}'),
        (['\x7f\u00e9\U0001f600"\\\n'], '["\\u007F\\u00E9\\uD83D\\uDE00\\"\\\\\\n"]'),
        (1e999, "inf"),
        (2.0, "2"),
        ({"id": 0.1}, '{"id": 0.10000000000000001}'),
        ([1e16, -1e-7], "[10000000000000000, -9.9999999999999995e-08]"),
        (["version 1.5\u00e9"], '["version 1.5\\u00E9"]'),
    ],
)
def test_written_form(value: Any, text: str) -> None:
    assert text == dumps(value)


def test_pretty_form() -> None:
    assert (
        dumps({"a": {}, "b": [1, 2]}, pretty=True)
        == '{\n    "a": {\n    },\n    "b": [\n        1,\n        2\n    ]\n}'
    )
