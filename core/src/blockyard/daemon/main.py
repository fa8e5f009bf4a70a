# SPDX-License-Identifier: Apache-2.0
"""The program ``blockyard-daemon``."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockyard.daemon.getopt import Given
    from blockyard.daemon.process import Background, PidFile

__all__ = ["main"]

#: Applied before everything else; the rest in the order given.
_FIRST = frozenset(("help", "version", "daemonize", "pidfile"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon with the arguments of the command line; answers the exit status."""
    # All that is imported now stays: looking for garbage in it is a tenth of the start.
    gc.disable()
    from blockyard.daemon.getopt import UsageError, parse
    from blockyard.daemon.usage import LONG, SHORT, help_text, version_text
    from blockyard.standardstreams import hold_standard_streams

    hold_standard_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    program = sys.argv[0].rpartition("/")[2]
    try:
        given = parse(words, LONG, SHORT)
    except UsageError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    for option in given:
        if option.name in ("help", "version"):
            print((help_text if option.name == "help" else version_text)(program), end="")
            return 0
    return _start(program, given)


def _start(program: str, given: list[Given]) -> int:
    """Fork if that is asked for, then import what may start threads."""
    from blockyard.activation import listen_descriptors
    from blockyard.daemon.process import Background, PidFile, daemonize

    listen_descriptors()
    names = {option.name for option in given}
    paths = [option.argument or "" for option in given if option.name == "pidfile"]
    background = daemonize() if "daemonize" in names else Background()
    pid_file = PidFile(paths[-1]) if paths else None
    try:
        rest = [option for option in given if option.name not in _FIRST]
        return _run(program, rest, pid_file, background, forked="daemonize" in names)
    finally:
        if pid_file is not None:
            pid_file.remove()


def _run(
    program: str,
    options: list[Given],
    pid_file: PidFile | None,
    background: Background,
    *,
    forked: bool,
) -> int:
    import logging

    import anyio

    from blockyard.daemon.apply import Finished
    from blockyard.daemon.lifecycle import OptionError, serve
    from blockyard.daemon.tracing import EventsFileError, Tracing
    from blockyard.errors import BlockyardError
    from blockyard.repairs import tell_bare

    tell_bare()
    logging.basicConfig(format=f"{program}: %(message)s", level=logging.WARNING)
    if forked:
        from blockyard.chardev.stdio import forbid

        forbid()
    try:
        anyio.run(serve, options, Tracing(program), pid_file, background)
    except Finished:
        return 0
    except EventsFileError as error:
        print(f"{program}:{error}", file=sys.stderr)
        return 1
    except (OptionError, BlockyardError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
