# SPDX-License-Identifier: Apache-2.0
"""Help texts, made from the declared types and their docstrings.

A type's docstring documents its members in lines ``name: text``; a line that is
indented deeper continues the one before.
"""

from __future__ import annotations

import re

from blockyard.schema.shape import (
    AlternateShape,
    ArrayShape,
    BuiltinShape,
    EnumShape,
    MemberShape,
    ObjectShape,
    Shape,
    shape_of,
)

__all__ = ["help_text", "list_text", "member_docs"]

_DOC_LINE = re.compile(r"(?P<name>[A-Za-z][\w*-]*): (?P<text>.*)")
_COLUMN = 24

#: How the type of a value is called where QEMU's property lists name it.
_NAMES = {
    "int64": "int",
    "boolean": "bool",
    "string": "string",
    "null": "null",
    "any": "any",
    "str": "string",
}


def help_text(cls: type, *, title: str | None = None, case: str | None = None) -> str:
    """What ``TYPE,help`` prints: ``title``, then a line for each member, sorted.

    Of a union these are the members that every branch has, and with ``case``, a value of
    its tag, those of that branch too.

    :raises BlockyardError: if the branch is a plugin's that cannot be loaded.
    """
    shape = shape_of(cls)
    assert isinstance(shape, ObjectShape)
    branch = shape.branch(case) if case is not None else None
    found = dict(_documented(shape))
    if branch is not None:
        found |= _documented(branch)
    members = sorted(found, key=lambda member: f"{member.name}=")
    lines = [f"{title}:"] if title else []
    return "\n".join([*lines, *(_line(member, found[member]) for member in members)])


def _documented(shape: ObjectShape) -> dict[MemberShape, str]:
    docs = member_docs(shape.cls)
    return {member: member.doc or docs.get(member.name, "") for member in shape.members}


def list_text(title: str, names: list[str]) -> str:
    """What ``help`` prints where a type is expected: the types there are."""
    return "\n".join([f"{title}:", *(f"  {name}" for name in sorted(names))])


def member_docs(cls: type) -> dict[str, str]:
    """QAPI name -> documentation, of a type's members, inherited ones included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if "__qapi__" in base.__dict__:
            found |= _docs_of(base.__doc__ or "")
    return found


def _docs_of(docstring: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name = None
    for line in docstring.splitlines():
        match = _DOC_LINE.fullmatch(line.strip())
        if match:
            name = match["name"]
            found[name] = match["text"]
        elif name and line.strip():
            found[name] += " " + line.strip()
        else:
            name = None
    return found


def _line(member: MemberShape, doc: str) -> str:
    left = f"  {member.name}=<{_type_name(member.shape)}>"
    if not doc:
        return left
    return f"{left:<{_COLUMN}} - {doc}"


def _type_name(shape: Shape) -> str:
    if isinstance(shape, BuiltinShape):
        return _NAMES.get(shape.name, shape.name)
    if isinstance(shape, EnumShape):
        return "|".join(shape.values()) if shape.cls else shape.name
    if isinstance(shape, ArrayShape):
        return f"list of {_type_name(shape.element)}"
    if isinstance(shape, AlternateShape):
        return shape.name
    return f"{shape.name} object"
