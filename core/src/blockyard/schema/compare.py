# SPDX-License-Identifier: Apache-2.0
"""Comparing two answers to query-qmp-schema.

Types have no common names, so they are matched by where they are used: from each
command and event down, member by member.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Difference", "compare", "report"]


@attrs.frozen(order=True)
class Difference:
    """One thing in which two schemas differ."""

    #: Where: ``blockdev-add:driver=file.locking``.
    path: str
    #: ``gap`` (theirs has it and ours has not), ``extra`` (the reverse) or ``differs``.
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind:8}{self.path}: {self.text}"


def compare(ours: Iterable[Any], theirs: Iterable[Any]) -> list[Difference]:
    """What differs between two lists of SchemaInfo, in order of place.

    What is only in a command or event that the other lacks is not listed.
    """
    comparison = _Comparison(ours, theirs)
    comparison.run()
    return sorted(comparison.found)


def report(differences: Iterable[Difference]) -> str:
    """The differences as text: gaps, differing things, extras."""
    order = {"gap": 0, "differs": 1, "extra": 2}
    lines = sorted(differences, key=lambda item: (order[item.kind], item.path))
    return "\n".join(str(line) for line in lines)


class _Comparison:
    def __init__(self, ours: Iterable[Any], theirs: Iterable[Any]) -> None:
        self._ours = {info["name"]: info for info in ours}
        self._theirs = {info["name"]: info for info in theirs}
        self._seen: set[tuple[str, str]] = set()
        self._todo: list[tuple[str, str, str]] = []
        self.found: list[Difference] = []

    def run(self) -> None:
        for meta in ("command", "event"):
            ours, theirs = (
                {name: info for name, info in schema.items() if info["meta-type"] == meta}
                for schema in (self._ours, self._theirs)
            )
            for name in self._common(meta, ours, theirs):
                self._entry(name, ours[name], theirs[name])
        while self._todo:
            self._types(*self._todo.pop())

    def _note(self, kind: str, path: str, text: str) -> None:
        self.found.append(Difference(path, kind, text))

    def _common(self, path: str, ours: Iterable[str], theirs: Iterable[str]) -> list[str]:
        """The names that both have; the others are noted."""
        mine, other = dict.fromkeys(ours), dict.fromkeys(theirs)
        for name in other:
            if name not in mine:
                self._note("gap", path, name)
        for name in mine:
            if name not in other:
                self._note("extra", path, name)
        return [name for name in mine if name in other]

    def _entry(self, name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        self._features(name, ours, theirs)
        if ours.get("allow-oob", False) != theirs.get("allow-oob", False):
            self._note("differs", name, "allow-oob")
        for key, mark in (("arg-type", ":"), ("ret-type", "->")):
            if key in theirs:
                self._todo.append((name + mark, ours[key], theirs[key]))

    def _features(self, path: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        mine, other = ours.get("features", ()), theirs.get("features", ())
        if set(mine) != set(other):
            self._note("differs", path, f"features {sorted(mine)}, theirs {sorted(other)}")

    def _types(self, path: str, our_name: str, their_name: str) -> None:
        if (our_name, their_name) in self._seen:
            return
        self._seen.add((our_name, their_name))
        ours, theirs = self._ours[our_name], self._theirs[their_name]
        if ours["meta-type"] != theirs["meta-type"]:
            self._note("differs", path, f"{ours['meta-type']}, theirs {theirs['meta-type']}")
            return
        self._features(path, ours, theirs)
        compare_kind = getattr(self, f"_{ours['meta-type']}")
        compare_kind(path, ours, theirs)

    def _builtin(self, path: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        if ours["json-type"] != theirs["json-type"]:
            self._note("differs", path, f"{ours['json-type']}, theirs {theirs['json-type']}")

    def _array(self, path: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        self._todo.append((f"{path}[]", ours["element-type"], theirs["element-type"]))

    def _enum(self, path: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        mine, other = _by_name(ours), _by_name(theirs)
        for value in self._common(path, mine, other):
            self._features(f"{path}={value}", mine[value], other[value])

    def _alternate(self, path: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        mine = self._by_meta(self._ours, ours)
        other = self._by_meta(self._theirs, theirs)
        for kind in self._common(f"{path}|", mine, other):
            self._todo.append((f"{path}|", mine[kind], other[kind]))

    @staticmethod
    def _by_meta(schema: Mapping[str, Any], alternate: Mapping[str, Any]) -> dict[str, str]:
        found = {}
        for member in alternate["members"]:
            info = schema[member["type"]]
            kind = info.get("json-type", info["meta-type"])
            found["string" if kind == "enum" else kind] = member["type"]
        return found

    def _object(self, path: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        if ours.get("tag") != theirs.get("tag"):
            self._note("differs", path, f"tag {ours.get('tag')}, theirs {theirs.get('tag')}")
        mine, other = _by_name(ours), _by_name(theirs)
        for name in self._common(path, mine, other):
            self._member(f"{path}.{name}", mine[name], other[name])
        cases = {case["case"]: case["type"] for case in ours.get("variants", ())}
        theirs_cases = {case["case"]: case["type"] for case in theirs.get("variants", ())}
        for case in self._common(f"{path} case", cases, theirs_cases):
            self._todo.append((f"{path}({case})", cases[case], theirs_cases[case]))

    def _member(self, path: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        if ("default" in ours) != ("default" in theirs):
            text = "optional" if "default" in ours else "not optional"
            self._note("differs", path, f"{text}, theirs the reverse")
        self._features(path, ours, theirs)
        self._todo.append((path, ours["type"], theirs["type"]))


def _by_name(info: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {member["name"]: member for member in info["members"]}
