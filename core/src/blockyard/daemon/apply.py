# SPDX-License-Identifier: Apache-2.0
"""Applying the options that are commands: blockdev, chardev, export, monitor..., in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.errors import BlockyardError, InvalidOption, NotFound, UnknownPlugin
from blockyard.qmp.command import command_type
from blockyard.schema.keyvalvisitor import visit_text
from blockyard.trace import point

if TYPE_CHECKING:
    from blockyard.daemon.getopt import Given
    from blockyard.daemon.tracing import Tracing
    from blockyard.yard import Yard

__all__ = ["Finished", "Options"]

_OPTION = point("daemon_option")
#: Option -> the command that it is, and the key that its first value may omit.
_COMMANDS = {"blockdev": ("blockdev-add", "driver"), "export": ("block-export-add", "type")}


class Finished(Exception):  # noqa: N818
    """Raised when an option asked for a list, which has been printed."""


class Options:
    """Applies options to a yard."""

    def __init__(self, yard: Yard, tracing: Tracing) -> None:
        self._yard = yard
        self._tracing = tracing

    async def apply(self, option: Given) -> None:
        """Apply one option.

        :raises BlockyardError: with QEMU's text.
        :raises Finished: if it was a question, and the answer has been printed.
        """
        _OPTION("%s", option.text)
        text = option.argument or ""
        if option.name in _COMMANDS:
            name, implied = _COMMANDS[option.name]
            await self.run("commands", name, text, implied)
        elif option.name == "trace":
            if not self._tracing.option(text):
                raise Finished
            self._tracing.attach(self._yard)
        elif option.name == "chardev":
            await self._chardev(text)
        elif option.name == "monitor":
            await self._monitor(text)
        elif option.name == "object":
            await self._object(text)
        elif option.name == "nbd-server":
            await self.run("options", "nbd-server", text, None)
        else:
            raise InvalidOption("Unexpected argument")

    async def run(self, kind: str, name: str, text: str, implied: str | None) -> None:
        """Run a command whose arguments are an option's."""
        if not self._yard.registry.has(kind, name):
            raise UnknownPlugin(f"Option '--{name}' needs the package blockyard-exports-nbd")
        found = command_type(self._yard.registry.find(kind, name))
        await found.run(self._yard, visit_text(found.args, text, implied))

    async def _chardev(self, text: str) -> None:
        from blockyard.chardev.parse import parse_line
        from blockyard.chardev.registry import chardevs_of

        line = parse_line(text)
        if line.kind in ("help", "?"):
            names = "\n".join(f"  {name}" for name in self._yard.registry.names("chardevs"))
            print(f"Available chardev backend types: \n{names}")
            raise Finished
        if line.label is None:
            raise InvalidOption("chardev: no id specified")
        if line.kind is None:
            raise InvalidOption(f'chardev: "{line.label}" missing backend')
        chardevs = chardevs_of(self._yard)
        options = line.options(chardevs.kind(line.kind).parse)
        await chardevs.add(line.label, line.kind, options, wait=True)

    async def _monitor(self, text: str) -> None:
        from blockyard.chardev.monitor import monitors_of
        from blockyard.schema.control import MonitorMode, MonitorOptions

        options = visit_text(MonitorOptions, text, "chardev")
        if options.mode == MonitorMode.READLINE:
            raise BlockyardError("Only QMP is supported")
        label = options.id or monitors_of(self._yard).next_id()
        await self.monitor(options.chardev, label, pretty=bool(options.pretty))

    async def monitor(self, chardev: str, label: str, *, pretty: bool) -> None:
        """Serve QMP on a chardev."""
        from blockyard.schema.control import MonitorQMPProperties
        from blockyard.schema.qom import ObjectOptions

        properties = MonitorQMPProperties(chardev=chardev, pretty=pretty)
        await self._yard.objects.add(ObjectOptions(qom_type="monitor-qmp", id=label, u=properties))

    async def passed_monitor(self, fd: int) -> None:
        """Serve QMP on a listening socket that was passed."""
        from blockyard.chardev.registry import chardevs_of
        from blockyard.schema.chardevkinds import ChardevSocket
        from blockyard.schema.structure import visit

        address = {"type": "fd", "data": {"str": str(fd)}}
        options = visit(ChardevSocket, {"addr": address, "server": True, "wait": False})
        made = await chardevs_of(self._yard).add("qmp", "socket", options)
        await self.monitor(made.label, "qmp", pretty=False)

    async def _object(self, text: str) -> None:
        from blockyard.schema.qom import ObjectOptions

        if not text.startswith("{") and self._object_help(text):
            raise Finished
        options = visit_text(ObjectOptions, text, "qom-type")
        try:
            await self._yard.objects.add(options)
        except InvalidOption as error:
            if str(error) == "Parameter 'id' expects an identifier":
                raise InvalidOption(
                    f"{error}\nIdentifiers consist of letters, digits, '-', '.', '_', "
                    "starting with a letter."
                ) from None
            raise

    def _object_help(self, text: str) -> bool:
        """Print the types, or one type's properties, if that was the question."""
        from blockyard.schema.keyval import parse_with_help

        values, asked = parse_with_help(text, "qom-type")
        if not asked:
            return False
        print(self._describe(values.get("qom-type")))
        return True

    def _describe(self, name: Any) -> str:
        from blockyard.schema.help import help_text, list_text

        registry = self._yard.registry
        try:
            options = registry.find("objects", name).options if name else None
        except (UnknownPlugin, NotFound):
            options = None
        if options is None:
            return list_text("List of user creatable objects", registry.names("objects"))
        return help_text(options, title=f"{name} options")
