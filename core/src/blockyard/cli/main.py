# SPDX-License-Identifier: Apache-2.0
"""``blockyard TOOL ...``: find the tool, hand over."""

import argparse
import sys
from collections.abc import Sequence

from blockyard.cli.tool import Tool, ToolError
from blockyard.errors import BlockyardError
from blockyard.plugins import Registry, default_registry
from blockyard.standardstreams import hold_standard_streams

__all__ = ["main"]

_DESCRIPTION = """\
Disk images, served and managed.

  blockyard serve disk.img      share an image with any NBD client
  blockyard plugins             see which drivers, formats and exports are installed
  blockyard TOOL --help         learn what a tool does, with examples

A daemon under QMP control, with qemu-storage-daemon's command line, is
'blockyard-daemon'.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; answers the exit status."""
    hold_standard_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    registry = default_registry()
    try:
        if words and not words[0].startswith("-"):
            return _run_tool(registry, words[0], words[1:])
        _overview(registry).parse_args(words or ["--help"])
    except ToolError as error:
        return error.report()
    except BlockyardError as error:
        print(f"blockyard: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has seen enough.
        sys.stderr.close()
        return 141
    return 0


def _run_tool(registry: Registry, name: str, words: list[str]) -> int:
    """Only the named tool is imported."""
    if name not in registry.names("tools"):
        known = ", ".join(registry.names("tools"))
        raise ToolError(f"there is no tool '{name}'; there are: {known}")
    tool: Tool = registry.find("tools", name)
    try:
        implementation = tool.load()
    except ImportError as error:
        raise ToolError(f"tool '{name}' cannot be loaded: {error}") from error
    main = getattr(implementation, "main", None)
    if main is not None:
        return int(main(words))
    parser = argparse.ArgumentParser(
        prog=f"blockyard {name}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    implementation.configure(parser)
    return implementation.run(parser.parse_args(words))


def _overview(registry: Registry) -> argparse.ArgumentParser:
    """The parser of ``blockyard --help`` and ``--version``, with every tool's line."""
    names = registry.names("tools")
    lines = [f"  {name:<12}{_summary(registry, name)}" for name in names]
    parser = argparse.ArgumentParser(
        prog="blockyard",
        usage="blockyard TOOL [options]",
        description=_DESCRIPTION,
        epilog="\n".join(["tools:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"blockyard {_version()}")
    return parser


def _summary(registry: Registry, name: str) -> str:
    """A tool's line; a broken one harms only itself."""
    try:
        tool: Tool = registry.find("tools", name)
    except BlockyardError as error:
        return f"(cannot be loaded: {error})"
    return tool.summary


def _version() -> str:
    from importlib.metadata import version

    return version("blockyard")


if __name__ == "__main__":
    sys.exit(main())
