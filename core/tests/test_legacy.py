# SPDX-License-Identifier: Apache-2.0
"""The older form of options."""

import pytest

from blockyard.schema.legacy import list_ok, parse_legacy, wants_help


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("a=1,b=2", [("a", "1"), ("b", "2")]),
        ("a=1,,2,b=", [("a", "1,2"), ("b", "")]),
        ("a=1,a=2", [("a", "1"), ("a", "2")]),
        ("x=a=b", [("x", "a=b")]),
    ],
)
def test_pairs_are_taken_apart(text: str, pairs: list[tuple[str, str]]) -> None:
    assert parse_legacy(text) == pairs


def test_the_first_value_may_omit_its_key() -> None:
    assert parse_legacy("node0,a=1", implied="file") == [("file", "node0"), ("a", "1")]
    assert parse_legacy("a=1", implied="file") == [("a", "1")]


def test_a_key_alone_is_on_or_off_and_deprecated(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_legacy("fast,nofast", program="qemu-img") == [("fast", "on"), ("fast", "off")]
    assert capsys.readouterr().err == (
        "qemu-img: warning: short-form boolean option 'fast' deprecated\n"
        "Please use fast=on instead\n"
        "qemu-img: warning: short-form boolean option 'nofast' deprecated\n"
        "Please use fast=off instead\n"
    )


@pytest.mark.parametrize("text", ["a", "a=1,b=2", "a=1,,"])
def test_a_list_may_be_put_together_with_others(text: str) -> None:
    assert list_ok(text)


@pytest.mark.parametrize("text", ["", ",", ",,", "a,", ",a", "a,,,"])
def test_a_list_that_begins_or_ends_with_a_comma_may_not(text: str) -> None:
    assert not list_ok(text)


@pytest.mark.parametrize("text", ["help", "?", "a=1,help", "help,a=1", "a=1,?,b=2"])
def test_help_is_found_anywhere(text: str) -> None:
    assert wants_help(text)


@pytest.mark.parametrize("text", ["", "a=help", "a=1,,help", "helpful", "a=?", "help="])
def test_help_in_a_value_is_none(text: str) -> None:
    assert not wants_help(text)
