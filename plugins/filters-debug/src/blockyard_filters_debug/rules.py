# SPDX-License-Identifier: Apache-2.0
"""Rules of blkdebug as the options and the file say them, and as C takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard_filters_debug.config import Section
from blockyard_filters_debug.events import BlkdebugEvent, BlkdebugIOType

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["event_number", "native_rules", "sections_of"]

_EVENTS = {event: number for number, event in enumerate(BlkdebugEvent)}
_IOTYPES = {iotype: 1 << number for number, iotype in enumerate(BlkdebugIOType)}
#: Whether the range of a block matters to nobody: errors there are asked for by name.
_DEFAULT_IOTYPES = sum(_IOTYPES.values()) - _IOTYPES[BlkdebugIOType.BLOCK_STATUS]
_EIO = 5
_SECTOR = 512


def event_number(name: str) -> int:
    """The event's place in ``enum by_debug_event``.

    :raises ValueError: if there is no such event.
    """
    return _EVENTS[BlkdebugEvent(name)]


def sections_of(options: Any) -> list[Section]:
    """The rules in BlockdevOptionsBlkdebug."""
    from blockyard.schema import dump

    errors = [Section("inject-error", dump(each)) for each in options.inject_error or ()]
    return errors + [Section("set-state", dump(each)) for each in options.set_state or ()]


def native_rules(sections: list[Section]) -> Iterator[dict[str, Any]]:
    """``struct by_blkdebug_rule`` for each, errors before states as QEMU has them."""
    for section in sorted(sections, key=lambda each: each.kind):
        values = section.values
        rule = {
            "event": event_number(values["event"]),
            "state": _int(values.get("state", 0)),
        }
        if section.kind == "set-state":
            yield rule | {"action": 1, "new_state": _int(values.get("new_state", 0))}
        else:
            yield rule | _injection(values)


def _injection(values: dict[str, Any]) -> dict[str, Any]:
    sector = values.get("sector", -1)
    iotype = values.get("iotype")
    delay = values.get("delay-ns", 0)
    return {
        "action": 0,
        # A negative number is no error; nothing is injected then.
        "error": max(_int(values.get("errno", _EIO)), 0),
        "iotypes": _DEFAULT_IOTYPES if iotype is None else _IOTYPES[BlkdebugIOType(iotype)],
        "offset": -1 if sector == -1 else _offset(sector),
        "delay_ns": max(delay, 0),
        "once": bool(values.get("once")),
        "immediately": bool(values.get("immediately")),
    }


def _offset(sector: int) -> int:
    """Bytes; -2, which nothing meets, for a sector that no image has."""
    return sector * _SECTOR if 0 <= sector < 1 << 54 else -2


def _int(value: int) -> int:
    """The value as a C ``int`` takes it."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)
