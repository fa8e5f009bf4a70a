# SPDX-License-Identifier: Apache-2.0
"""The same commands to a yard and to a real qemu-storage-daemon."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal

from blockyard.errors import BlockyardError
from blockyard.qmp.dispatcher import Dispatcher
from blockyard.schema.structure import dump
from blockyard.yard import Yard

QSD = os.environ.get("BLOCKYARD_QSD") or shutil.which("qemu-storage-daemon")
#: A command and its arguments.
Command = tuple[str, dict[str, Any]]


class Ours:
    """A yard in a thread, driven as by a monitor."""

    def __init__(self, portal: BlockingPortal, yard: Yard) -> None:
        self.portal = portal
        self.yard = yard
        self.dispatcher = Dispatcher(yard, yard.registry)

    def run(self, command: str, /, **arguments: Any) -> Any:
        """What the command returns; its error is raised."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.portal.call(self.dispatcher.execute, command, named)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a coroutine function on the yard's thread."""
        return self.portal.call(function, *args)

    def answers(self, commands: list[Command]) -> list[Any]:
        """The answers, of errors their texts."""
        return [self._answer(*command) for command in commands]

    def _answer(self, command: str, arguments: dict[str, Any]) -> Any:
        try:
            return dump(self.portal.call(self.dispatcher.execute, command, arguments))
        except BlockyardError as error:
            return str(error)


def theirs(commands: list[Command]) -> list[Any]:
    """The answers of a real daemon, of errors their texts."""
    if QSD is None:
        pytest.skip("no qemu-storage-daemon here")
    lines = [json.dumps({"execute": name, "arguments": args}) for name, args in commands]
    text = "\n".join(['{"execute":"qmp_capabilities"}', *lines, '{"execute":"quit"}'])
    done = subprocess.run(
        [QSD, "--chardev", "stdio,id=m", "--monitor", "m"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    found = [each for each in replies if "return" in each or "error" in each]
    return [each.get("error", {}).get("desc", each.get("return")) for each in found[1:-1]]
