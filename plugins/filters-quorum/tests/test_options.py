# SPDX-License-Identifier: Apache-2.0
"""Options, permissions and children that come and go, next to a real daemon's."""

from __future__ import annotations

from typing import Any

NULL = {"driver": "null-co", "size": 65536}
CHANGE = "x-blockdev-change"
DELETE = ("blockdev-del", {"node-name": "q"})
GRAPH: tuple[str, dict[str, Any]] = ("x-debug-query-block-graph", {})


def add(name: str = "q", **options: Any) -> tuple[str, dict[str, Any]]:
    named = {key.replace("_", "-"): value for key, value in options.items()}
    return "blockdev-add", {"node-name": name, "driver": "quorum", **named}


def null(name: str, **options: Any) -> tuple[str, dict[str, Any]]:
    return "blockdev-add", {**NULL, "node-name": name, **options}


def change(parent: str, **arguments: str) -> tuple[str, dict[str, Any]]:
    return CHANGE, {"parent": parent, **arguments}


def edges(ours: Any, *parents: str) -> list[tuple[str, str, list[str], list[str]]]:
    """What these nodes ask of their children, and what they share."""
    (graph,) = ours.answers([GRAPH])
    names = {node["id"]: node["name"] for node in graph["nodes"]}
    return [
        (names[edge["parent"]], edge["name"], edge["perm"], edge["shared-perm"])
        for edge in graph["edges"]
        if names[edge["parent"]] in parents
    ]


def test_options_that_do_not_fit_are_refused_in_qemus_words(same: Any) -> None:
    two, three = [NULL, NULL], [NULL, NULL, NULL]
    longer = {"driver": "null-co", "size": 131072}
    both = {"blkverify": True, "rewrite_corrupted": True}
    same(
        [
            add(children=[], vote_threshold=1),
            add(children=[], vote_threshold=0),
            add(children=[NULL], vote_threshold=0),
            add(children=[NULL], vote_threshold=-5),
            add(children=[NULL], vote_threshold=2),
            add(children=["nobody"], vote_threshold=2),
            add(children=["nobody"], vote_threshold=1),
            add(children=[NULL, longer], vote_threshold=1),
            add(children=[NULL, longer, NULL], vote_threshold=3),
            add(children=two, vote_threshold=1, blkverify=True),
            add(children=["nobody", NULL], vote_threshold=1, blkverify=True),
            add(children=three, vote_threshold=2, blkverify=True),
            add(children=two, vote_threshold=2, **both),
            add(children=three, vote_threshold=2, **both),
            add(children=two, vote_threshold=5, read_pattern="fifo"),
            add(children=two, vote_threshold=2, read_pattern="random"),
            add(children=NULL, vote_threshold=2),
            add(vote_threshold=2),
            add(children=[NULL]),
            add(children=[NULL], vote_threshold="1"),
            add(children=two, vote_threshold=2, rewrite_corrupted=True, read_only=True),
        ]
    )


def test_options_that_fit_are_taken_as_there(same: Any) -> None:
    two, three = [NULL, NULL], [NULL, NULL, NULL]
    wanted: list[dict[str, Any]] = [
        {"children": [NULL], "vote_threshold": 1},
        {"children": [NULL] * 33, "vote_threshold": 2},
        {"children": two, "vote_threshold": 2, "blkverify": True},
        {"children": two, "vote_threshold": 2, "blkverify": True, "read_pattern": "fifo"},
        {"children": three, "vote_threshold": 2, "blkverify": True, "read_pattern": "fifo"},
        {"children": three, "vote_threshold": 2, "rewrite_corrupted": False},
        {
            "children": two,
            "vote_threshold": 2,
            "read_only": True,
            "rewrite_corrupted": True,
            "read_pattern": "fifo",
        },
    ]
    answers = same([each for options in wanted for each in (add(**options), DELETE)])

    assert answers == [{}] * len(answers)


def test_it_cannot_be_opened_again(same: Any) -> None:
    again = {"driver": "quorum", "node-name": "q", "children": ["a", "b"], "vote-threshold": 2}
    same(
        [
            null("a"),
            null("b"),
            add(children=["a", "b"], vote_threshold=2),
            ("blockdev-reopen", {"options": [again]}),
            ("blockdev-reopen", {"options": [{**again, "vote-threshold": 1}]}),
            ("block_resize", {"node-name": "q", "size": 4096}),
        ]
    )


def test_what_it_asks_of_its_children(ours: Any, same: Any) -> None:
    cow = {"driver": "copy-on-read", "node-name": "cor"}
    inner = add("in_cor", children=[NULL, NULL], vote_threshold=2)[1]
    ro = {"read_only": True}
    same(
        [
            null("a"),
            null("b"),
            add("plain", children=[NULL, NULL], vote_threshold=2),
            add("rewriting", children=[NULL, NULL], vote_threshold=2, rewrite_corrupted=True),
            add("reading", children=["a", "b"], vote_threshold=2, rewrite_corrupted=True, **ro),
            add("shared", children=[NULL], vote_threshold=1, force_share=True, **ro),
            add("asleep", children=[NULL], vote_threshold=1, active=False),
            ("blockdev-add", {**cow, "file": inner}),
        ]
    )
    few = ["write-unchanged", "consistent-read"]

    assert edges(ours, "plain") == [("plain", f"children.{i}", [], few) for i in (0, 1)]
    assert edges(ours, "rewriting")[0][2:] == (["write"], few)
    assert edges(ours, "reading")[0][2:] == (["write"], few)
    assert edges(ours, "shared")[0][2] == []
    assert len(edges(ours, "shared")[0][3]) == 4
    assert edges(ours, "asleep")[0][2:] == ([], few)


def test_one_node_may_be_several_children(same: Any) -> None:
    same(
        [
            null("a"),
            add(children=["a", "a"], vote_threshold=2),
            change("q", child="children.0"),
            DELETE,
            add(children=["a", "a"], vote_threshold=2, read_only=True),
        ]
    )


def _shape(answer: list[dict[str, Any]]) -> list[Any]:
    (node,) = [each for each in answer if each["node-name"] == "q"]
    return [node["file"], node["image"]["filename"]]


def test_children_come_and_go(ours: Any, same: Any) -> None:
    same(
        [
            null("n0"),
            null("n1"),
            null("n2"),
            add(children=["n0", {**NULL, "node-name": "in"}, NULL], vote_threshold=2),
            change("q"),
            change("q", child="children.0", node="n1"),
            change("nobody"),
            change("nobody", child="children.0"),
            change("nobody", child="children.0", node="n1"),
            change("q", child="nothing"),
            change("q", child=""),
            change("q", node="nobody"),
            change("q", node=""),
            change("n0", node="n1"),
            change("n0", child="file"),
            change("q", node="n1"),
            change("q", node="n1"),
            change("q", node="q"),
            change("q", child="children.3"),
            change("q", child="children.1"),
            change("in", node="n1"),
            change("q", child="children.0"),
            change("q", child="children.2"),
            change("q", node="n0"),
            change("q", node="n2"),
            change("q", child="children.5"),
            change("q", node="n1"),
            change("q", node="q"),
            ("blockdev-del", {"node-name": "n1"}),
            change("q", child="children.4"),
            ("blockdev-del", {"node-name": "n1"}),
        ]
    )

    assert [edge[1] for edge in edges(ours, "q")] == ["children.0", "children.2", "children.3"]
    assert "in" not in ours.yard.graph.nodes


def test_others_have_no_list_of_children(same: Any) -> None:
    same(
        [
            null("n0"),
            null("n1"),
            ("blockdev-add", {"driver": "raw", "node-name": "r", "file": "n0"}),
            change("r", node="n1"),
            change("r", node="n0"),
            change("r", child="file"),
            change("r", child="backing"),
        ]
    )


def test_where_children_may_not_come_or_go(same: Any) -> None:
    two = {"children": [NULL, NULL], "vote_threshold": 2}
    read = {"read_only": True, "rewrite_corrupted": True}
    over = {"driver": "raw", "node-name": "over", "file": "alone"}
    same(
        [
            null("free", **{"read-only": True}),
            null("w0"),
            null("w1"),
            add("verify", **two, blkverify=True),
            change("verify", node="free"),
            change("verify", node="verify"),
            change("verify", child="children.0"),
            add("fifo", **two, blkverify=True, read_pattern="fifo"),
            change("fifo", child="children.1"),
            add("reads", children=["w0", "w1"], vote_threshold=2, **read),
            change("reads", node="free"),
            change("fifo", node="free"),
            change("fifo", child="children.0"),
            add("alone", children=[NULL], vote_threshold=1),
            ("blockdev-add", over),
            change("alone", node="over"),
            ("blockdev-del", {"node-name": "over"}),
            ("blockdev-del", {"node-name": "alone"}),
        ]
    )


def test_a_child_of_another_length_is_refused(ours: Any) -> None:
    answers = ours.answers(
        [
            null("longer", size=131072),
            add(children=[NULL, NULL], vote_threshold=2),
            change("q", node="longer"),
        ]
    )

    assert answers[-1] == ("Node 'longer' has 131072 bytes, but the children of 'q' have 65536")
    assert [edge[1] for edge in edges(ours, "q")] == ["children.0", "children.1"]


def test_a_child_that_is_refused_leaves_nothing_behind(ours: Any) -> None:
    """A read-only node cannot be rewritten; the others go on as before."""
    ours.answers(
        [
            null("free", **{"read-only": True}),
            null("w0", **{"read-zeroes": True}),
            null("w1", **{"read-zeroes": True}),
            add(children=["w0", "w1"], vote_threshold=2, rewrite_corrupted=True),
            change("q", node="free"),
        ]
    )

    async def use() -> None:
        node = ours.yard.graph.find("q")
        assert list(node.children) == ["children.0", "children.1"]
        async with ours.yard.graph.carrier.inside(node) as access:
            await access.write(0, b"x" * 512)
            assert await access.read(0, 512) == bytes(512)

    ours.call(use)


def test_names_and_options(ours: Any, same_answers: Any) -> None:
    def shape(commands: list[Any]) -> Any:
        return [_shape(answer) for answer in commands if isinstance(answer, list)]

    ask = ("query-named-block-nodes", {"flat": True})
    commands = [
        null("n2"),
        add(children=[NULL, NULL], vote_threshold=1, rewrite_corrupted=False, read_pattern="fifo"),
        ask,
        change("q", node="n2"),
        change("q", child="children.0"),
        ask,
        DELETE,
        add(children=[NULL, {"driver": "raw", "file": NULL}], vote_threshold=2, blkverify=True),
        ask,
    ]
    found = shape(ours.answers(commands))

    assert found == shape(same_answers.theirs(commands))
