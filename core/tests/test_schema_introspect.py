# SPDX-License-Identifier: Apache-2.0
"""query-qmp-schema: well-formed, complete, and compared with QEMU's.

Given a file with what a QEMU answered to query-qmp-schema (BLOCKYARD_QMP_SCHEMA), or a
qemu-storage-daemon 11.1 or newer (BLOCKYARD_QSD or on PATH), the comparison is printed
(``-s``), and of what exists here nothing of theirs may be missing.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest

from blockyard.plugins import default_registry
from blockyard.qmp import command_type, event_type
from blockyard.schema import QEnum, Size, alternate, branches, enum, member, struct, union
from blockyard.schema.compare import Difference, compare, report
from blockyard.schema.help import help_text, list_text
from blockyard.schema.introspect import introspect
from blockyard.schema.qom import IothreadProperties

SCHEMA = os.environ.get("BLOCKYARD_QMP_SCHEMA")
QSD = os.environ.get("BLOCKYARD_QSD") or shutil.which("qemu-storage-daemon")

#: Commands whose argument is a union that plugins extend; what is not installed is missing.
OPEN = {"blockdev-add": "driver", "object-add": "qom-type", "block-export-add": "type"}


@enum(value_features={"b": ("deprecated",)})
class Kind(QEnum):
    A = "a"
    B = "b"


@struct
class Leaf:
    size: Size | None = None
    many: "list[Tree] | None" = None


@union("kind", features=("unstable",))
class Tree:
    kind: Kind
    ref: "TreeOrName | None" = member(default=None, features=("deprecated",))
    u: Leaf | None = branches(fixed={"a": Leaf})


TreeOrName = Annotated[Any, alternate("TreeOrName", lambda: {"tree": Tree, "name": str})]


def record(name: str, args: Any = None, returns: Any = None, **extra: Any) -> SimpleNamespace:
    return SimpleNamespace(name=name, args=args, returns=returns, features=(), **extra)


def described(*commands: SimpleNamespace) -> list[Any]:
    return introspect(commands, [])


def ours() -> list[Any]:
    registry = default_registry()
    return introspect(
        [command_type(function) for _, function in registry.every("commands")],
        [event_type(cls) for _, cls in registry.every("events")],
    )


def theirs() -> list[Any]:
    if SCHEMA:
        found = json.loads(Path(SCHEMA).read_text())
        return list(found["return"] if isinstance(found, dict) else found)
    if not QSD:
        pytest.skip("neither BLOCKYARD_QMP_SCHEMA nor a qemu-storage-daemon here")
    command = [QSD, "--chardev", "stdio,id=m", "--monitor", "m"]
    talk = '{"execute":"qmp_capabilities"}{"execute":"query-qmp-schema"}{"execute":"quit"}'
    done = subprocess.run(command, input=talk, capture_output=True, text=True, check=True)
    greeting, _, answer, *_ = map(json.loads, done.stdout.splitlines())
    version = greeting["QMP"]["version"]["qemu"]
    if (version["major"], version["minor"]) < (11, 1):
        pytest.skip("the interface is that of 11.1")
    return list(answer["return"])


def test_types_are_described() -> None:
    schema = {info["name"]: info for info in described(record("c", Tree, list[str]))}

    assert schema["c"] == {
        "name": "c",
        "meta-type": "command",
        "arg-type": "0",
        "ret-type": "[str]",
    }
    assert schema["0"] == {
        "name": "0",
        "meta-type": "object",
        "members": [
            {"name": "kind", "type": "3"},
            {"name": "ref", "type": "4", "default": None, "features": ["deprecated"]},
        ],
        "tag": "kind",
        "variants": [{"case": "a", "type": "5"}, {"case": "b", "type": "6"}],
        "features": ["unstable"],
    }
    assert schema["3"]["members"] == [{"name": "a"}, {"name": "b", "features": ["deprecated"]}]
    assert schema["4"]["members"] == [{"type": "0"}, {"type": "str"}]
    assert schema["6"] == {"name": "6", "meta-type": "object", "members": []}
    assert schema["int"] == {"name": "int", "meta-type": "builtin", "json-type": "int"}
    assert schema["[str]"] == {"name": "[str]", "meta-type": "array", "element-type": "str"}


def test_every_type_that_is_named_is_there_once() -> None:
    schema = ours()
    names = [info["name"] for info in schema]
    named = set(re.findall(r'-?type": "([^"]+)"', json.dumps(schema)))
    metas = {"builtin", "enum", "array", "object", "alternate", "command", "event"}
    jsons = {"string", "number", "int", "boolean", "null", "object", "array", "value"}

    assert len(names) == len(set(names))
    assert named - set(names) <= metas | jsons


def test_a_schema_equals_itself() -> None:
    assert compare(ours(), ours()) == []


def test_differences_are_named() -> None:
    @struct
    class Mine:
        same: str
        mine: int
        kind: Kind
        changed: str | None = None

    @struct
    class Theirs:
        same: str
        theirs: int
        kind: str
        changed: bool

    found = compare(
        described(record("c", Mine), record("mine")),
        described(record("c", Theirs, allow_oob=True), record("theirs")),
    )

    assert found == [
        Difference("c", "differs", "allow-oob"),
        Difference("c:", "extra", "mine"),
        Difference("c:", "gap", "theirs"),
        Difference("c:.changed", "differs", "optional, theirs the reverse"),
        Difference("c:.changed", "differs", "string, theirs boolean"),
        Difference("c:.kind", "differs", "enum, theirs builtin"),
        Difference("command", "extra", "mine"),
        Difference("command", "gap", "theirs"),
    ]
    assert report(found).startswith("gap     c:: theirs\n")


def test_nothing_of_qemu_is_missing_from_what_is_here() -> None:
    qemus = theirs()
    found = compare(ours(), qemus)
    print(report(found))
    plugins = plugin_names(qemus)
    missing = [item for item in found if item.kind != "extra" and item.text not in plugins]

    assert [item for item in missing if item.path not in ("command", "event")] == []


def plugin_names(schema: list[Any]) -> set[str]:
    """The tags of the open unions."""
    by_name = {info["name"]: info for info in schema}
    found = set()
    for command, tag in OPEN.items():
        arguments = by_name[by_name[command]["arg-type"]]
        (kind,) = (member["type"] for member in arguments["members"] if member["name"] == tag)
        found |= {member["name"] for member in by_name[kind]["members"]}
    return found


def test_help_of_a_branch_has_the_common_members_too() -> None:
    lines = help_text(Tree, case="a").splitlines()

    assert lines == [
        "  kind=<a|b>",
        "  many=<list of Tree object>",
        "  ref=<TreeOrName>",
        "  size=<size>",
    ]


def test_help_names_every_option() -> None:
    lines = help_text(IothreadProperties, title="iothread options").splitlines()

    assert lines[0] == "iothread options:"
    assert [line.split("=")[0].strip() for line in lines[1:]] == [
        "aio-max-batch",
        "poll-grow",
        "poll-max-ns",
        "poll-shrink",
        "poll-weight",
        "thread-pool-max",
        "thread-pool-min",
    ]
    assert all(" - " in line for line in lines[1:])
    assert list_text("Types", ["b", "a"]) == "Types:\n  a\n  b"
