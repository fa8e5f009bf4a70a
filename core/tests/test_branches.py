# SPDX-License-Identifier: Apache-2.0
"""Plugins as branches of the open unions."""

import pytest

from blockyard.branches import provide_branches
from blockyard.entrypoints import EntryPoint
from blockyard.errors import InvalidOption, UnknownPlugin
from blockyard.node import DriverType
from blockyard.plugins import Registry
from blockyard.qmp.command import CommandType
from blockyard.schema import shape, struct, visit
from blockyard.schema.block import BlockdevCreateOptions, BlockdevOptions
from blockyard.schema.blockinfo import ImageInfoSpecific
from blockyard.schema.introspect import introspect


@struct
class Options:
    size: int | None = None


@struct
class Info:
    version: int


class Declared:
    """A declaration with what only some drivers have."""

    name = "fancy"
    options = Options
    create_options = Options
    image_info_type = Info


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(shape, "_sources", {})
    broken = EntryPoint("blockyard.drivers", "broken", "nowhere_at_all:X", "blockyard-broken", "1")
    made = Registry([broken], only="broken")
    bare = DriverType(name="bare", kind="protocol", options=None, implementation="")
    made.add("drivers", "bare", bare)
    made.add("formats", "fancy", Declared())
    provide_branches(made)
    return made


def test_a_driver_is_a_branch() -> None:
    assert visit(BlockdevOptions, {"driver": "fancy", "size": 3}).u == Options(size=3)
    assert visit(BlockdevOptions, {"driver": "bare"}).u is None
    assert visit(BlockdevCreateOptions, {"driver": "fancy"}).u == Options()
    assert visit(BlockdevCreateOptions, {"driver": "bare"}).u is None


def test_information_of_an_image_is_wrapped() -> None:
    found = visit(ImageInfoSpecific, {"type": "fancy", "data": {"version": 3}})

    assert found.u.data == Info(version=3)
    with pytest.raises(InvalidOption, match="does not accept value 'bare'"):
        visit(ImageInfoSpecific, {"type": "bare"})


@pytest.mark.parametrize(
    ("name", "advice"),
    [("nonesuch", ""), ("qcow2", "; install the package blockyard-formats-qcow2")],
)
def test_an_unknown_driver_is_named_with_its_package(name: str, advice: str) -> None:
    with pytest.raises(InvalidOption) as error:
        visit(BlockdevOptions, {"driver": name})

    assert str(error.value) == f"Parameter 'driver' does not accept value '{name}'{advice}"


def test_a_broken_plugin_harms_only_itself() -> None:
    with pytest.raises(UnknownPlugin, match="Plugin 'broken' of blockyard-broken"):
        visit(BlockdevOptions, {"driver": "broken"})

    async def run(yard: object, args: object) -> None:
        return None

    command = CommandType(name="blockdev-add", args=BlockdevOptions, run=run)
    schema = {info["name"]: info for info in introspect([command], [])}
    cases = [case["case"] for case in schema["0"]["variants"]]
    assert cases == ["bare", "fancy"]
