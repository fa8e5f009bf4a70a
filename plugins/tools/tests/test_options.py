# SPDX-License-Identifier: Apache-2.0
"""The programs' options."""

import pytest

from blockyard_tools.error import ProgramError
from blockyard_tools.options import parse, spec

SPEC = spec("help|h", "format|f=", "image-opts", "|F=", "|q")


def test_options_and_words_may_be_mixed() -> None:
    line = parse(["-q", "a", "--format=raw", "b", "-Fqcow2", "--", "-h"], SPEC, "p")

    assert line.words == ("a", "b", "-h")
    assert [each.name for each in line] == ["-q", "format", "-F"]
    assert (line.last("format"), line.last("-F"), line.last("other")) == ("raw", "qcow2", None)
    assert line.has("-q")
    assert not line.has("help")


def test_the_last_of_several_counts() -> None:
    line = parse(["-f", "raw", "--form", "qcow2"], SPEC, "p")

    assert line.last("format") == "qcow2"
    assert line.all("format") == ["raw", "qcow2"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--foo"], "unrecognized option '--foo'"),
        (["-Z"], "invalid option -- 'Z'"),
        (["-f"], "option requires an argument -- 'f'"),
        (["--format"], "option '--format' requires an argument"),
        (["--help=3"], "option '--help' doesn't allow an argument"),
    ],
)
def test_errors_are_getopts_with_a_hint(words: list[str], text: str) -> None:
    with pytest.raises(ProgramError) as caught:
        parse(words, SPEC, "qemu-img info", "Try 'x'")

    assert str(caught.value) == f"{text}\nTry 'x'"
    assert caught.value.program == "qemu-img info"
