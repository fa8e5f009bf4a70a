# SPDX-License-Identifier: Apache-2.0
"""Declaring types, structuring values, dumping them."""

import subprocess
import sys
from typing import Annotated, Any

import attrs
import pytest

from blockyard.errors import InvalidOption
from blockyard.schema import (
    NULL,
    Null,
    QEnum,
    Size,
    Uint8,
    alternate,
    branches,
    dump,
    enum,
    member,
    shape_of,
    struct,
    union,
    visit,
)
from blockyard.schema.declare import wrapper
from blockyard.schema.sockets import InetSocketAddress, SocketAddress, SocketAddressLegacy


@enum(value_features={"old": ("deprecated",)})
class Mode(QEnum):
    NEW = "new"
    OLD = "old"


@struct
class Base:
    node_name: str
    mode: Mode | None = None


@struct(features=("unstable",))
class Derived(Base):
    in_: Uint8 | None = None
    new_state: int | None = member(default=None, name="new_state", features=("deprecated",))
    count: int = 7
    parts: "list[Part] | None" = None
    free: Any = None


@struct
class Part:
    ref: "PartOrName | None" = None


PartOrName = Annotated[
    Any,
    alternate("PartOrName", lambda: {"part": Part, "name": str, "none": Null, "list": list[str]}),
]


@struct
class Small:
    size: Size


@union("kind")
class Either:
    kind: Mode
    note: str | None = None
    u: Small | None = branches(fixed={"new": Small, "old": None})


def test_declaring_resolves_nothing() -> None:
    @struct
    class Late:
        value: "NowhereDefined"  # type: ignore[name-defined]  # noqa: F821

    assert "__attrs_attrs__" in Late.__dict__
    with pytest.raises(Exception, match="NowhereDefined"):
        Late(value=1)


def test_instances_are_attrs_objects() -> None:
    made = Derived(node_name="n", mode=Mode.NEW)

    assert attrs.has(Derived)
    names = ["node_name", "mode", "in_", "new_state", "count", "parts", "free"]
    assert names == [field.name for field in attrs.fields(Derived)]
    assert made == attrs.evolve(made, count=7)
    assert "Derived(node_name='n'" in repr(made)
    with pytest.raises(TypeError, match="node_name"):
        Derived()  # type: ignore[call-arg]


def test_inherited_members_come_first() -> None:
    shape = shape_of(Derived)
    names = ["node-name", "mode", "in", "new_state", "count", "parts", "free"]

    assert names == [member.name for member in shape.members]  # type: ignore[union-attr]


def test_values_are_structured() -> None:
    found = visit(
        Derived,
        {
            "node-name": "n",
            "mode": "old",
            "in": 255,
            "parts": [{"ref": "x"}, {"ref": {"ref": None}}, {}, {"ref": ["a"]}],
            "free": {"any": [1, None]},
        },
    )

    assert found.mode is Mode.OLD
    assert found.in_ == 255
    assert found.count == 7
    assert found.parts == [
        Part(ref="x"),
        Part(ref=Part(ref=NULL)),
        Part(),
        Part(ref=["a"]),
    ]
    assert found.free == {"any": [1, None]}


def test_dumping_is_the_reverse() -> None:
    value = {
        "node-name": "n",
        "mode": "new",
        "new_state": 3,
        "count": 7,
        "parts": [{"ref": {"ref": None}}, {"ref": "x"}],
        "free": 1.5,
    }

    assert value == dump(visit(Derived, value))
    assert dump(visit(Derived, {"node-name": "n"})) == {"node-name": "n", "count": 7}


def test_unions_hold_their_branch() -> None:
    assert visit(Either, {"kind": "new", "size": 3, "note": "x"}) == Either(
        kind=Mode.NEW, note="x", u=Small(size=3)
    )
    assert visit(Either, {"kind": "old"}).u is None
    assert dump(Either(kind=Mode.NEW, u=Small(size=3))) == {"kind": "new", "size": 3}
    with pytest.raises(InvalidOption, match=r"Parameter 'size' is unexpected"):
        visit(Either, {"kind": "old", "size": 3})


def test_the_older_form_of_an_address_is_the_newer_one() -> None:
    inet = {"host": "::1", "port": "1"}
    old = visit(SocketAddressLegacy, {"type": "inet", "data": inet})

    assert old.flat == visit(SocketAddress, {"type": "inet", **inet})
    assert isinstance(old.flat.u, InetSocketAddress)


@pytest.mark.parametrize("value", [-1, 256, 2**64, -(2**63) - 1])
def test_fixed_widths_hold(value: int) -> None:
    with pytest.raises(InvalidOption, match=r"^Parameter 'in' expects uint(8_t|64)$"):
        visit(Derived, {"node-name": "n", "in": value})


def test_a_negative_unsigned_number_wraps() -> None:
    assert visit(Small, {"size": -1}).size == (1 << 64) - 1


def test_the_whole_may_have_a_name() -> None:
    with pytest.raises(InvalidOption, match=r"^Parameter 'x.node-name' is missing$"):
        visit(Derived, {}, name="x")
    with pytest.raises(InvalidOption, match=r"^Invalid parameter type for 'x', expected: object$"):
        visit(Derived, [], name="x")


def test_wrappers_are_made_once() -> None:
    assert wrapper(Small) is wrapper(Small)
    assert visit(wrapper(Small), {"data": {"size": 1}}).data == Small(size=1)  # type: ignore[attr-defined]


def test_deep_values_are_refused_in_words() -> None:
    value: Any = "x"
    for _ in range(5000):
        value = {"ref": value}

    with pytest.raises(InvalidOption, match="nested too deeply"):
        visit(Part, value)


def test_importing_the_types_imports_no_converter() -> None:
    types = "blockyard.schema.block, blockyard.schema.chardev"
    code = f"import sys, {types}; print('cattrs' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
