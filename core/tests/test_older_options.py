# SPDX-License-Identifier: Apache-2.0
"""Options that only names and programs' command lines may have, and what errors hint at."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from blockyard.branches import provide_branches
from blockyard.errors import BlockyardError, InvalidOption
from blockyard.imagename import completed, visited
from blockyard.node import ChildSpec, DriverType
from blockyard.permission import Role
from blockyard.plugins import Registry, default_registry
from blockyard.schema import struct
from blockyard.schema.block import BlockdevRef


def _adapt(options: dict[str, Any]) -> dict[str, Any]:
    if "name" not in options:
        raise InvalidOption("there is no name")
    rest = {key: value for key, value in options.items() if key != "name"}
    return {**rest, "filename": options["name"]}


@struct
class OptionsRow:
    """Options of a filter over several nodes."""

    parts: list[BlockdevRef]


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Files whose name may be called ``name``, and a filter over a list of nodes."""
    made = Registry()
    file = default_registry().driver("file")
    older = attrs.evolve(file, adapt_options=_adapt)
    made.add("drivers", "file", older)
    row = DriverType(
        name="row",
        kind="filter",
        options=OptionsRow,
        implementation="",
        children=(ChildSpec(name="parts", role=Role.DATA, many=True),),
    )
    made.add("drivers", "row", row)
    provide_branches(made)
    yield made
    provide_branches(default_registry())


def test_a_driver_takes_its_older_options_wherever_it_is_in_the_tree(registry: Registry) -> None:
    tree = {"driver": "raw", "file": {"driver": "file", "name": "a", "read-only": "on"}}
    assert visited(tree, registry).u.file.u.filename == "a"
    assert visited({"driver": "file", "name": "b"}, registry).u.filename == "b"
    listed = {"driver": "row", "parts": ["node", {"driver": "file", "name": "c"}]}
    assert visited(listed, registry).u.parts[1].u.filename == "c"


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


def test_children_in_lists_are_known_by_their_files(registry: Registry, tmp_path: Path) -> None:
    """A driver is found for what has a file; a node that is named is not looked into."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4096))
    file = {"filename": str(image)}
    parts = ["node", {"file": file}, {"driver": "raw", "file": file}, {"file": "node"}]
    given = {"driver": "row", "parts": parts}
    found = anyio.run(completed, registry, given)

    whole = {"driver": "raw", "file": {"driver": "file", **file}}
    assert found["parts"] == ["node", whole, whole, {"driver": "raw", "file": "node"}]
    assert given["parts"][1] == {"file": {"filename": str(image)}}
    with pytest.raises(InvalidOption, match="Must specify either driver or file"):
        anyio.run(completed, registry, {"driver": "row", "parts": [dict(file)]})
