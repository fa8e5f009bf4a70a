# SPDX-License-Identifier: Apache-2.0
"""The monitor itself: capabilities, version, commands, schema, quit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.qmp.command import command, command_type
from blockyard.qmp.dispatcher import current
from blockyard.qmp.event import event_type
from blockyard.qmp.version import version_info
from blockyard.schema.control import CommandInfo, QMPCapability, VersionInfo
from blockyard.schema.declare import struct
from blockyard.schema.schemainfo import SchemaInfo

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = [
    "qmp_capabilities",
    "query_commands",
    "query_qmp_schema",
    "query_version",
    "quit_daemon",
]


@struct
class QmpCapabilitiesArguments:
    """What qmp_capabilities takes.

    enable: the capabilities to switch on; none if absent.
    """

    enable: list[QMPCapability] | None = None


@command("qmp_capabilities", args=QmpCapabilitiesArguments)
async def qmp_capabilities(yard: Yard, args: QmpCapabilitiesArguments) -> None:
    """Leave capabilities negotiation mode."""
    request = current()
    if request is not None:
        request.session.enable([capability.value for capability in args.enable or []])


@command("query-version", returns=VersionInfo)
async def query_version(yard: Yard, args: None) -> VersionInfo:
    """The version."""
    return version_info()


@command("query-commands", returns=list[CommandInfo])
async def query_commands(yard: Yard, args: None) -> list[CommandInfo]:
    """The commands there are."""
    return [CommandInfo(name=name) for name in yard.registry.names("commands")]


@command("query-qmp-schema", returns=list[SchemaInfo])
async def query_qmp_schema(yard: Yard, args: None) -> list[Any]:
    """The interface, described; worked out once."""
    found = yard.extra.get("qmp-schema")
    if found is None:
        from blockyard.schema.introspect import introspect

        found = yard.extra["qmp-schema"] = introspect(
            [command_type(function) for _, function in yard.registry.every("commands")],
            [event_type(cls) for _, cls in yard.registry.every("events")],
        )
    return list(found)


@command("quit")
async def quit_daemon(yard: Yard, args: None) -> None:
    """End the daemon, with nothing lost; whoever waits for ``yard.extra["quit"]`` does it."""
    wish = yard.extra.get("quit")
    if wish is not None:
        wish.set()
