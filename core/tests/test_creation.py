# SPDX-License-Identifier: Apache-2.0
"""The options by which people make images."""

import pytest

from blockyard.creation import SIZE, CreateOption, Creation, Kind, boolean, described
from blockyard.errors import InvalidOption

BITS = CreateOption("bits", Kind.NUMBER, "How many")
FAST = CreateOption("fast", Kind.BOOL, "Whether to hurry", "off")
NAME = CreateOption("name", Kind.TEXT, "What it is called")


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        (FAST, "maybe", "Parameter 'fast' expects 'on' or 'off'"),
        (BITS, "x", "Parameter 'bits' expects a number"),
        (BITS, "16k", "Parameter 'bits' expects a number"),
        (BITS, "9" * 30, f"Value '{'9' * 30}' is too large for parameter 'bits'"),
        (SIZE, "-1", "Value '-1' is out of range for parameter 'size'"),
        (SIZE, "16E", "Value '16E' is out of range for parameter 'size'"),
    ],
)
def test_a_value_of_another_kind_is_refused(option: CreateOption, value: str, text: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        option.check(value)

    assert str(caught.value) == text


@pytest.mark.parametrize("value", ["x", "1.5", "-1k", "0x10k"])
def test_a_size_that_is_none_brings_a_hint(value: str) -> None:
    with pytest.raises(InvalidOption, match="expects a non-negative number below 2.64\nOptional"):
        SIZE.check(value)


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        (SIZE, "1k", "1024"),
        (SIZE, "0x10", "16"),
        (BITS, "0x10", "16"),
        (BITS, "-1", "-1"),
        (FAST, "y", "y"),
        (NAME, "a,b", "a,,b"),
    ],
)
def test_good_values_are_told(option: CreateOption, value: str, text: str) -> None:
    option.check(value)

    assert option.shown(value) == text


@pytest.mark.parametrize(("text", "value"), [("on", True), ("y", True), ("off", False)])
def test_flags_have_several_words(text: str, value: bool) -> None:
    assert boolean("fast", text) is value


def test_help_is_sorted_and_aligned() -> None:
    assert described([SIZE, BITS, FAST]) == (
        "  bits=<num>             - How many\n"
        "  fast=<bool (on/off)>   - Whether to hurry\n"
        "  size=<size>            - Virtual disk size"
    )


def test_options_are_called_as_members_unless_said() -> None:
    plain = Creation(options=(SIZE, FAST))
    own = Creation(options=(NAME,), members=lambda values: {"called": values["name"]})

    assert plain.translated({"size": "1", "be_fast": "on"}) == {"size": "1", "be-fast": "on"}
    assert own.translated({"name": "x"}) == {"called": "x"}
    assert plain.named("fast") is FAST
    assert plain.named("slow") is None
