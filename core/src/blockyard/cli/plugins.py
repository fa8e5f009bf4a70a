# SPDX-License-Identifier: Apache-2.0
"""``blockyard plugins``: what is installed, as a table or as JSON."""

import argparse
import json

from blockyard.plugins import PluginRecord, default_registry

__all__ = ["configure", "run"]

#: Kinds of which there are many and that nobody chooses by name.
_PLENTY = ("commands", "events")

_DESCRIPTION = """\
List the drivers, formats, exports, objects and tools that are installed, which
distribution brought each, and whether it can be loaded.
"""

_EXAMPLES = """\
examples:
  blockyard plugins                         the table, without QMP commands and events
  blockyard plugins --all                   with them
  blockyard plugins --kind formats          one kind
  blockyard plugins --json | jq '.[].name'  for programs
  BLOCKYARD_PLUGINS=drivers-file,exports-nbd blockyard plugins
                                            what these distributions alone bring

A plugin is any installed distribution with entry points in the groups
blockyard.drivers, blockyard.formats and so on.  One whose state is not 'ok' says
why, and harms nobody else.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The tool's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EXAMPLES
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--kind", metavar="KIND", help="only this kind, for example exports")
    parser.add_argument("--all", action="store_true", help="QMP commands and events as well")


def run(options: argparse.Namespace) -> int:
    """Print the list; 1 when something installed cannot be loaded."""
    records = [r for r in default_registry().records(load=True) if _wanted(r, options)]
    if options.json:
        print(json.dumps([_as_data(record) for record in records], indent=2))
    else:
        print(_table(records))
    return 1 if any(record.error for record in records) else 0


def _wanted(record: PluginRecord, options: argparse.Namespace) -> bool:
    if options.kind:
        return bool(record.kind == options.kind)
    return bool(options.all or options.json or record.kind not in _PLENTY)


def _state(record: PluginRecord) -> str:
    return record.error or "ok"


def _as_data(record: PluginRecord) -> dict[str, str]:
    return {
        "kind": record.kind,
        "name": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "state": _state(record),
    }


def _table(records: list[PluginRecord]) -> str:
    """Columns as wide as their widest entry."""
    head = ("KIND", "NAME", "DISTRIBUTION", "VERSION", "STATE")
    rows = [head, *(tuple(_as_data(record).values()) for record in records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
