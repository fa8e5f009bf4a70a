# SPDX-License-Identifier: Apache-2.0
"""The rules file of blkdebug: ``[inject-error]`` and ``[set-state]`` sections.

The format is that of QEMU's ``-readconfig``, quirks included: a comment begins in the
first column, what stands behind a section's bracket or a value's closing quote is not
looked at, and a value without quotes is empty.
"""

from __future__ import annotations

import re
from typing import Any

import attrs

from blockyard.changes.options import reported
from blockyard.errors import InvalidOption
from blockyard_filters_debug.events import BlkdebugEvent, BlkdebugIOType

__all__ = ["MAX_BYTES", "Section", "parse_config"]

#: Bytes of the longest file; each of its rules is looked at by every request.
MAX_BYTES = 1 << 20

_LINE = 1023
# sscanf takes no character back, hence the possessive quantifiers.
_GROUP_ID = re.compile(r'\[\s*(?P<group>\S{1,63}+)\s*"(?P<id>[^"]{1,63})')
_GROUP = re.compile(r"\[(?P<group>[^\]]{1,63})")
_VALUE = re.compile(r'\s*(?P<name>\S{1,63}+)\s*=\s*"(?P<value>[^"]{1,1023})')
_NAME = re.compile(r"\s*(?P<name>\S{1,63})")
_NUMBER = re.compile(r"\s*(?P<sign>[+-]?)(?P<digits>0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)\Z")

_SWITCHES = {
    **dict.fromkeys(("on", "yes", "true", "y"), True),
    **dict.fromkeys(("off", "no", "false", "n"), False),
}
_FIELDS: dict[str, dict[str, type]] = {
    "inject-error": {
        "event": str,
        "state": int,
        "iotype": str,
        "errno": int,
        "delay-ns": int,
        "sector": int,
        "once": bool,
        "immediately": bool,
    },
    "set-state": {"event": str, "state": int, "new_state": int},
}


@attrs.frozen
class Section:
    """One rule of the file: ``kind`` is the section's name, ``values`` are QAPI's members."""

    kind: str
    values: dict[str, Any]


def parse_config(text: str) -> list[Section]:
    """The rules in a file, in its order.

    :raises InvalidOption: with QEMU's text, for what it does not understand.
    """
    groups = _groups(text)
    for kind, values in groups:
        _check_known(kind, values)
    return [Section(kind, _converted(values)) for kind, values in groups]


def _lines(text: str) -> list[str]:
    """Lines as fgets with a buffer of 1024 bytes gives them, the newline included."""
    return [
        line[at : at + _LINE]
        for line in text.splitlines(keepends=True)
        for at in range(0, len(line), _LINE)
    ]


def _groups(text: str) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    taken: set[tuple[str, str]] = set()
    for line in _lines(text):
        if line.startswith(("\n", "#")):
            continue
        if group := _GROUP_ID.match(line) or _GROUP.match(line):
            kind, name = group["group"], group.groupdict().get("id")
            _check_group(kind, name, taken)
            found.append((kind, {}))
        else:
            _take_value(line, found)
    return found


def _check_group(kind: str, name: str | None, taken: set[tuple[str, str]]) -> None:
    if kind not in _FIELDS:
        raise InvalidOption(f"There is no option group '{kind}'")
    if name is not None:
        if (kind, name) in taken:
            raise InvalidOption(f"Duplicate ID '{name}' for {kind}")
        taken.add((kind, name))


def _take_value(line: str, found: list[tuple[str, dict[str, Any]]]) -> None:
    item = _VALUE.match(line)
    name = item or _NAME.match(line)
    if name is None:
        raise InvalidOption("parse error")
    if not found:
        raise InvalidOption("no group defined")
    kind, values = found[-1]
    value = item["value"] if item else ""
    values[name["name"]] = _typed(kind, name["name"], value)


def _typed(kind: str, name: str, text: str) -> Any:
    wanted = _FIELDS[kind].get(name, str)
    if wanted is int:
        return _number(name, text)
    if wanted is bool:
        if text not in _SWITCHES:
            raise InvalidOption(f"Parameter '{name}' expects 'on' or 'off'")
        return _SWITCHES[text]
    return text


def _number(name: str, text: str) -> int:
    match = _NUMBER.match(text)
    if match is None:
        raise InvalidOption(f"Parameter '{name}' expects a number")
    digits = match["digits"]
    value = int(digits, 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10)
    if value >= 1 << 64:
        raise InvalidOption(f"Value '{text}' is too large for parameter '{name}'")
    value = -value if match["sign"] == "-" else value
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _check_known(kind: str, values: dict[str, Any]) -> None:
    for name in reported([name for name in values if name not in _FIELDS[kind]]):
        raise InvalidOption(f"Invalid parameter '{name}'")


def _converted(values: dict[str, Any]) -> dict[str, Any]:
    if "event" not in values:
        raise InvalidOption("Missing event name for rule")
    checked = dict(values)
    for name, kind in (("event", BlkdebugEvent), ("iotype", BlkdebugIOType)):
        if name in checked:
            try:
                checked[name] = kind(checked[name])
            except ValueError:
                raise InvalidOption(f"invalid parameter value: {checked[name]}") from None
    return checked
