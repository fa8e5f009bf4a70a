# SPDX-License-Identifier: Apache-2.0
"""The registry: entry points, read cheaply and loaded lazily."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from blockyard.entrypoints import EntryPoint, installed
from blockyard.errors import UnknownPlugin
from blockyard.plugins import GROUPS, Registry


def entry(kind: str, name: str, value: str, distribution: str) -> EntryPoint:
    return EntryPoint(f"blockyard.{kind}", name, value, distribution, "1")


def test_what_is_read_is_what_the_standard_library_reads() -> None:
    expected = {
        (e.group, e.name, e.value)
        for group in GROUPS
        for e in metadata.entry_points(group=f"blockyard.{group}")
    }

    assert {(e.group, e.name, e.value) for e in installed("blockyard.")} == expected


def test_the_first_distribution_of_a_name_hides_later_ones(tmp_path: Path) -> None:
    for folder, value in {"one": "a:b", "two": "c:d"}.items():
        info = tmp_path / folder / "blockyard_x-1.2.dist-info"
        info.mkdir(parents=True)
        text = f"[other]\nq = q:q\n[blockyard.drivers]\n# note\nx-y = {value}\n"
        (info / "entry_points.txt").write_text(text)

    found = installed("blockyard.", [str(tmp_path / "one"), str(tmp_path / "two"), "/nowhere"])
    assert found == [EntryPoint("blockyard.drivers", "x-y", "a:b", "blockyard-x", "1.2")]


def test_an_environment_variable_limits_what_is_seen() -> None:
    entries = [
        entry("drivers", "a", "x:y", "blockyard-drivers-a"),
        entry("drivers", "b", "x:y", "blockyard-drivers-b"),
        entry("objects", "core", "x:y", "blockyard"),
    ]

    registry = Registry(entries, only="drivers-a")
    assert registry.names("drivers", "objects") == ["a", "core"]
    assert Registry(entries, only="blockyard-drivers-b").names("drivers") == ["b"]


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("drivers", "rbd", "Unknown driver 'rbd'"),
        (
            "drivers",
            "qcow2",
            "Unknown driver 'qcow2'; install the package blockyard-formats-qcow2",
        ),
        (
            "exports",
            "fuse",
            "Unknown block export type 'fuse'; install the package blockyard-exports-fuse",
        ),
        ("objects", "x", "Unknown object type 'x'"),
    ],
)
def test_a_missing_plugin_is_named_with_its_package(kind: str, name: str, text: str) -> None:
    registry = Registry([])

    with pytest.raises(UnknownPlugin) as caught:
        registry.driver(name) if kind == "drivers" else registry.find(kind, name)
    assert str(caught.value) == text


def test_a_broken_plugin_harms_only_itself() -> None:
    entries = [
        entry("tools", "bad", "no.such.module:x", "blockyard-bad"),
        entry("tools", "good", "json:dumps", "blockyard-good"),
    ]
    registry = Registry(entries, only="bad,good")

    assert [name for name, _ in registry.every("tools")] == ["good"]
    errors = {record.name: record.error for record in registry.records(load=True)}
    assert errors["good"] is None
    assert "blockyard-bad could not be loaded: ModuleNotFoundError" in str(errors["bad"])


def test_listing_imports_no_plugin() -> None:
    program = (
        "import sys; from blockyard.plugins import Registry; Registry().records();"
        "print([m for m in sys.modules if m.startswith('blockyard_') or m == 'importlib.metadata'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
