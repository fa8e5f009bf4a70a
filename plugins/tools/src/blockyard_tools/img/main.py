# SPDX-License-Identifier: Apache-2.0
"""``blockyard img``: the command line of qemu-img."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from blockyard.errors import BlockyardError
from blockyard_tools.error import ProgramError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]

#: Each sub-command's module is ``blockyard_tools.img.NAME``, with ``COMMAND`` and
#: ``main(line) -> int``; only the one that runs is imported.
COMMANDS: dict[str, str] = {
    "amend": "Update format-specific options of the image",
    "bench": "Run a simple image benchmark",
    "bitmap": "Perform modifications of the persistent bitmap in the image",
    "check": "Check basic image integrity",
    "commit": "Commit an image to its backing file",
    "compare": "Check if two images have the same contents",
    "convert": "Copy one or more images to another, changing the format on the way",
    "create": "Create and format a new image file",
    "dd": "Copy blocks of an image to another",
    "info": "Display information about the image",
    "map": "Dump image metadata",
    "measure": "Calculate the file size required for a new image",
    "rebase": "Change the backing file of an image",
    "resize": "Resize the image",
    "snapshot": "List or manipulate snapshots in the image",
}

_PROGRAM = "qemu-img"
_HINT = f"Try '{_PROGRAM} --help' for more info"


def main(words: Sequence[str]) -> int:
    """Run the program with these arguments; answers the exit status.

    :raises ProgramError: when it cannot go on.
    """
    # All that is imported now stays: looking for garbage in it is a tenth of a short run.
    gc.disable()
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "--"):
        if (status := _standard(rest)) is not None:
            return status
    if rest[:1] == ["--"]:
        del rest[0]
    if not rest:
        raise ProgramError(_PROGRAM, f"Not enough arguments\n{_HINT}")
    name = rest.pop(0)
    if name not in COMMANDS:
        raise ProgramError(_PROGRAM, f"Command not found: {name}\n{_HINT}")
    return run_command(name, rest)


def run_command(name: str, words: Sequence[str]) -> int:
    """Run a sub-command; answers the exit status.

    :raises ProgramError: when it cannot go on.
    """
    module = import_module(f"blockyard_tools.img.{name}")
    try:
        return int(module.main(module.COMMAND.parse(words)))
    except BlockyardError as error:
        raise ProgramError(_PROGRAM, str(error)) from error


def _standard(rest: list[str]) -> int | None:
    """Take one option before the sub-command off; answers the status if it was the last."""
    from blockyard_tools.options import parse, spec

    known = spec("help|h", "version|V", "trace|T=")
    # As much as belongs to the first option, and no word of the sub-command's.
    for count in (1, 2):
        try:
            line = parse(rest[:count], known, _PROGRAM, _HINT)
        except ProgramError:
            if count == 2 or len(rest) == 1:
                raise
            continue
        break
    del rest[:count]
    for option in line:
        if option.name == "help":
            print(_help())
            return 0
        if option.name == "version":
            print(version())
            return 0
        if not _trace(option.argument or ""):
            return 0
    return None


def version() -> str:
    """Who this is, and which qemu-img it stands in for."""
    from blockyard.qmp.version import INTERFACE, package_version

    interface = ".".join(map(str, INTERFACE))
    return f"{_PROGRAM} version {interface} (Blockyard {package_version()})"


def _trace(text: str) -> bool:
    """Turn tracing on as ``-T`` says; False if it was a question that has been answered."""
    from blockyard.daemon.tracing import Tracing
    from blockyard.errors import BlockyardError
    from blockyard_tools import running

    tracing = running.tracing = running.tracing or Tracing(_PROGRAM)
    try:
        return tracing.option(text)
    except BlockyardError as error:
        raise ProgramError(_PROGRAM, str(error)) from error


def _help() -> str:
    import textwrap

    from blockyard.plugins import BLOCK_KINDS, default_registry

    commands = "\n".join(f"  {name} - {summary}" for name, summary in sorted(COMMANDS.items()))
    formats = textwrap.fill(
        " ".join(default_registry().names(*BLOCK_KINDS)),
        76,
        initial_indent="  ",
        subsequent_indent="  ",
        break_on_hyphens=False,
    )
    return f"""\
{version()}
QEMU disk image utility.  Usage:

  {_PROGRAM} [standard options] COMMAND [--help | command options]

Standard options:
  -h, --help
     display this help and exit
  -V, --version
     display version info and exit
  -T, --trace TRACE
     specify tracing options:
        [[enable=]<pattern>][,events=<file>][,file=<file>]

Recognized commands (run {_PROGRAM} COMMAND --help for command-specific help):

{commands}

Supported image formats:

{formats}
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
