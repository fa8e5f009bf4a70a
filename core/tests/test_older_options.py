# SPDX-License-Identifier: Apache-2.0
"""Options that only names and programs' command lines may have, and what errors hint at."""

from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from blockyard.branches import provide_branches
from blockyard.errors import BlockyardError, InvalidOption
from blockyard.imagename import visited
from blockyard.plugins import Registry, default_registry


def _adapt(options: dict[str, Any]) -> dict[str, Any]:
    if "name" not in options:
        raise InvalidOption("there is no name")
    rest = {key: value for key, value in options.items() if key != "name"}
    return {**rest, "filename": options["name"]}


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Files whose name may be called ``name``."""
    made = Registry()
    file = default_registry().driver("file")
    older = attrs.evolve(file, adapt_options=_adapt)
    made.add("drivers", "file", older)
    provide_branches(made)
    yield made
    provide_branches(default_registry())


def test_a_driver_takes_its_older_options_wherever_it_is_in_the_tree(registry: Registry) -> None:
    tree = {"driver": "raw", "file": {"driver": "file", "name": "a", "read-only": "on"}}
    assert visited(tree, registry).u.file.u.filename == "a"
    assert visited({"driver": "file", "name": "b"}, registry).u.filename == "b"


def test_what_was_given_is_left_alone(registry: Registry) -> None:
    tree = {"driver": "raw", "file": {"driver": "file", "name": "a"}}
    visited(tree, registry)
    assert tree == {"driver": "raw", "file": {"driver": "file", "name": "a"}}


def test_a_driver_refuses_older_options_in_its_own_words(registry: Registry) -> None:
    with pytest.raises(BlockyardError, match="^there is no name$"):
        visited({"driver": "raw", "file": {"driver": "file", "filename": "a"}}, registry)


def test_without_a_registry_older_options_are_unknown() -> None:
    with pytest.raises(BlockyardError):
        visited({"driver": "file", "name": "a"})


def test_an_error_has_no_hint_unless_given_one() -> None:
    plain, told = BlockyardError("it failed"), BlockyardError("it failed")
    told.hint = "have you tried another one?"
    assert (plain.hint, str(told)) == ("", "it failed")
    assert plain.told == "it failed"
    assert told.told == "it failed\nhave you tried another one?"
