# SPDX-License-Identifier: Apache-2.0
"""The order in which QEMU's tables have names; what a real daemon named is in the tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.schema.order import dict_order, first_unvisited

names = st.lists(st.text(min_size=1, max_size=12), unique=True, min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("members", "order"),
    [
        (["major", "minor", "micro"], ["micro", "minor", "major"]),
        (["driver", "node-name"], ["node-name", "driver"]),
    ],
)
def test_members_have_qemus_order(members: list[str], order: list[str]) -> None:
    assert dict_order(members) == order


@given(names)
def test_no_name_is_lost(members: list[str]) -> None:
    assert sorted(dict_order(members)) == sorted(members)


@given(names, st.data())
def test_one_that_was_not_visited_is_named(members: list[str], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(members) - 1))
    visited = data.draw(st.permutations(members))[:count]

    assert first_unvisited(members, visited) in set(members) - set(visited)


def test_thousands_of_names_take_no_time() -> None:
    many = [f"name-{index}" for index in range(20_000)]

    assert first_unvisited(many, many[:1]) == many[1]
    assert first_unvisited(many[:10_000], ()) in many
