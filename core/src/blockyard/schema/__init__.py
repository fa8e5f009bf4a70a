# SPDX-License-Identifier: Apache-2.0
"""The types of the QMP interface: declaring, checking, structuring, describing."""

from blockyard.schema import keyval
from blockyard.schema.declare import (
    NULL,
    Int8,
    Int16,
    Int32,
    Int64,
    Null,
    QEnum,
    Size,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    alternate,
    branches,
    enum,
    member,
    open_enum,
    struct,
    union,
)
from blockyard.schema.keyvalvisitor import (
    json_or_keyval,
    parse_size,
    visit_keyval,
    visit_text,
)
from blockyard.schema.shape import BranchSource, branch_source, provide, shape_of
from blockyard.schema.structure import dump, structure, visit
from blockyard.schema.visitor import check

__all__ = [
    "NULL",
    "BranchSource",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "Null",
    "QEnum",
    "Size",
    "Uint8",
    "Uint16",
    "Uint32",
    "Uint64",
    "alternate",
    "branch_source",
    "branches",
    "check",
    "dump",
    "enum",
    "json_or_keyval",
    "keyval",
    "member",
    "open_enum",
    "parse_size",
    "provide",
    "shape_of",
    "struct",
    "structure",
    "union",
    "visit",
    "visit_keyval",
    "visit_text",
]
