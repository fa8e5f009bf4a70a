# SPDX-License-Identifier: Apache-2.0
"""The command line's key=value form: its rules, and the visitor of its strings."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.errors import InvalidOption
from blockyard.schema import (
    Size,
    Uint16,
    Uint64,
    json_or_keyval,
    keyval,
    parse_size,
    struct,
    visit_keyval,
)


@struct
class Inner:
    flag: bool | None = None
    sizes: list[Size] | None = None


@struct
class Nest:
    inner: "Nest | None" = None


@struct
class Outer:
    name: str
    small: Uint16 | None = None
    big: Uint64 | None = None
    signed: int | None = None
    size: Size | None = None
    share: float | None = None
    inner: Inner | None = None
    free: Any = None


@pytest.mark.parametrize(
    ("text", "implied", "value"),
    [
        ("", None, {}),
        ("a=1,b=2", None, {"a": "1", "b": "2"}),
        ("a=1,", None, {"a": "1"}),
        ("a=1,a=2", None, {"a": "2"}),
        ("a=", None, {"a": ""}),
        ("a=x,,y,,,b=z", None, {"a": "x,y,", "b": "z"}),
        ("a=b=c", None, {"a": "b=c"}),
        ("a.b.c=1,a.b.d=2", None, {"a": {"b": {"c": "1", "d": "2"}}}),
        ("a.1=y,a.0=x", None, {"a": ["x", "y"]}),
        ("a.00=x", None, {"a": ["x"]}),
        ("a.0.0=x,a.0.1=y,a.1.b=z", None, {"a": [["x", "y"], {"b": "z"}]}),
        ("v", "k", {"k": "v"}),
        ("v,b=1", "k", {"k": "v", "b": "1"}),
        ("a=1", "k", {"a": "1"}),
        ("v,k=w", "k", {"k": "w"}),
        ("__org.x_a=1", None, {"__org.x_a": "1"}),
        ("a-b_c=1", None, {"a-b_c": "1"}),
    ],
)
def test_meaning(text: str, implied: str | None, value: Any) -> None:
    assert value == keyval.parse(text, implied)


@pytest.mark.parametrize(
    ("text", "implied", "sentence"),
    [
        ("a", None, "Expected '=' after parameter 'a'"),
        ("a=1,b", None, "Expected '=' after parameter 'b'"),
        ("v,w", "k", "Expected '=' after parameter 'w'"),
        ("=v", None, "Invalid parameter ''"),
        (",", None, "Invalid parameter ''"),
        ("a..b=1", None, "Invalid parameter 'a..b'"),
        ("1=2", None, "Invalid parameter '1'"),
        ("_a=1", None, "Invalid parameter '_a'"),
        ("a b=1", None, "Invalid parameter 'a b'"),
        ("x" * 128 + "=1", None, f"Parameter '{'x' * 128}' is too long"),
        ("a." + "x" * 128 + "=1", None, f"Parameter fragment '{'x' * 128}' is too long"),
        ("a=1,a.b=2", None, "Parameters 'a.*' used inconsistently"),
        ("a.b=1,a=2", None, "Parameters 'a.*' used inconsistently"),
        ("a.0=1,a.b=2", None, "Parameters 'a.*' used inconsistently"),
        ("a.b.0=1,a.b.c=2", None, "Parameters 'a.b.*' used inconsistently"),
        ("a.1=x", None, "Parameter 'a.0' missing"),
        ("a.0=x,a.2=y", None, "Parameter 'a.1' missing"),
        ("a.b.1=x", None, "Parameter 'a.b.0' missing"),
        ("a.0=x,a.99999999999999999999=y", None, "Parameter 'a.1' missing"),
        ("help", None, "Help is not available for this option"),
        ("a=1,?", None, "Help is not available for this option"),
    ],
)
def test_refusals(text: str, implied: str | None, sentence: str) -> None:
    with pytest.raises(InvalidOption) as error:
        keyval.parse(text, implied)

    assert sentence == str(error.value)


@pytest.mark.parametrize(
    ("text", "value", "asks_help"),
    [
        ("help", {}, True),
        ("?", {}, True),
        ("a=1,help,b=2", {"a": "1", "b": "2"}, True),
        ("help=1", {"help": "1"}, False),
        ("a=help", {"a": "help"}, False),
        ("iothread,help", {"k": "iothread"}, True),
        ("help,x", {"k": "x"}, True),
    ],
)
def test_help_is_recognised(text: str, value: Any, asks_help: bool) -> None:
    assert (value, asks_help) == keyval.parse_with_help(text, "k")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("0x200", 512),
        ("64k", 65536),
        ("1.5K", 1536),
        (".5k", 512),
        ("1.", 1),
        ("1.k", 1024),
        ("1.0", 1),
        ("1e", 1 << 60),
        ("1.5e", 3 << 59),
        ("15.99999999999999999999E", 1 << 64),
        ("18446744073709551615", (1 << 64) - 1),
        ("7B", 7),
        (" +3M", 3 << 20),
        *((text, None) for text in ("", "k", "-1", "1.5", "1.5B", "1kb", "0x10k", "1 ", "16E")),
        *((text, None) for text in ("1e3", "nan", "inf", "1_0", "18446744073709551616", ".")),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    assert parse_size(text) == (size if size != 1 << 64 else None)


def test_strings_mean_what_the_type_says() -> None:
    text = "name=x,small=0x10,big=-1,signed=-010,size=1.5k,share=2.5e-1,inner.flag=on,free.a=1"
    found = visit_keyval(Outer, keyval.parse(f"{text},inner.sizes.0=1k,inner.sizes.1=2"))

    assert found == Outer(
        name="x",
        small=16,
        big=(1 << 64) - 1,
        signed=-8,
        size=1536,
        share=0.25,
        inner=Inner(flag=True, sizes=[1024, 2]),
        free={"a": "1"},
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("small=x", "Parameter 'name' is missing"),
        ("name=x,small=65536", "Parameter 'small' expects uint16_t"),
        ("name=x,small=1k", "Parameter 'small' expects integer"),
        ("name=x,signed=9223372036854775808", "Parameter 'signed' expects integer"),
        ("name=x,size=1.5", "Parameter 'size' expects size"),
        ("name=x,share=y", "Invalid parameter type for 'share', expected: number"),
        ("name=x,inner.flag=maybe", "Parameter 'inner.flag' expects 'on' or 'off'"),
        ("name=x,inner.sizes.0=y", "Parameter 'inner.sizes.0' expects size"),
        ("name=x,inner=y", "Invalid parameter type for 'inner', expected: object"),
        ("name.a=x", "Parameters 'name.*' are unexpected"),
        ("name=x,bogus=1", "Parameter 'bogus' is unexpected"),
    ],
)
def test_strings_that_mean_nothing(text: str, sentence: str) -> None:
    with pytest.raises(InvalidOption) as error:
        visit_keyval(Outer, keyval.parse(text))

    assert sentence == str(error.value)


def test_json_begins_with_a_brace() -> None:
    assert json_or_keyval('{"a": 1}') == ({"a": 1}, False)
    assert json_or_keyval("a=1") == ({"a": "1"}, True)


def test_merging() -> None:
    base: dict[str, Any] = {"a": {"b": "1", "c": "2"}, "l": ["x"], "s": "1"}
    keyval.merge(base, {"a": {"c": "3"}, "l": ["y"], "s": "2", "n": "4"})

    assert base == {"a": {"b": "1", "c": "3"}, "l": ["x", "y"], "s": "2", "n": "4"}
    with pytest.raises(InvalidOption, match=r"Parameter 'a\.b' used inconsistently"):
        keyval.merge(base, {"a": {"b": ["1"]}})


keys = st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True).filter(lambda key: key != "help")
trees = st.dictionaries(
    keys,
    st.recursive(
        st.text(max_size=6),
        lambda inner: st.lists(inner, min_size=1) | st.dictionaries(keys, inner, min_size=1),
        max_leaves=8,
    ),
)


def written(value: Any, path: str = "") -> list[str]:
    if isinstance(value, str):
        return [f"{path}={value.replace(',', ',,')}"]
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return [line for key, item in pairs for line in written(item, f"{path}.{key}".lstrip("."))]


@given(trees, st.randoms())
def test_what_is_written_is_read_again(tree: dict[str, Any], random: Any) -> None:
    lines = written(tree)
    random.shuffle(lines)

    assert tree == keyval.parse(",".join(lines))


@given(st.text(alphabet="ab01.,=?_-help", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        keyval.parse(text, "k")
    except InvalidOption:
        return


def test_deep_keys_neither_crash_nor_hang() -> None:
    assert keyval.parse("a" + ".b" * 1000 + "=1")
    with pytest.raises(InvalidOption, match="nested too deeply"):
        keyval.parse("a" + ".b" * 100_000 + "=1")
    with pytest.raises(InvalidOption, match="nested too deeply"):
        visit_keyval(Nest, keyval.parse("inner" + ".inner" * 1000 + "=1"))
