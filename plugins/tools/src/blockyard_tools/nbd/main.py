# SPDX-License-Identifier: Apache-2.0
"""``blockyard nbd``: the command line of qemu-nbd."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from blockyard_tools.error import ProgramError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockyard.daemon.tracing import Tracing
    from blockyard_tools.nbd.options import Settings

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Run the program with these arguments; answers the exit status.

    :raises ProgramError: when it cannot go on.
    """
    # What is imported now stays: looking for garbage in it is a good part of the start.
    gc.disable()
    try:
        return _main(words)
    finally:
        gc.enable()


def _main(words: Sequence[str]) -> int:
    from blockyard_tools.nbd.options import PROGRAM, Question, parse

    try:
        settings = parse(words)
    except Question as asked:
        if asked.name == "object":
            return 0  # answered where it was found
        from blockyard_tools.nbd.usage import help_text, version_text

        print((help_text if asked.name == "help" else version_text)(PROGRAM), end="")
        return 0
    return _run(settings)


def _run(settings: Settings) -> int:
    from blockyard.activation import listen_descriptors
    from blockyard.errors import BlockyardError
    from blockyard_tools.messages import speak_as
    from blockyard_tools.nbd.options import PROGRAM

    speak_as(PROGRAM)
    listen_descriptors()
    tracing = None
    try:
        if settings.traces:
            from blockyard.daemon.tracing import Tracing

            tracing = Tracing(PROGRAM)
            if not all(tracing.option(text) for text in settings.traces):
                return 0
        if settings.listing or settings.disconnect:
            _without_server(settings)
            return 0
        return _serve(settings, tracing)
    except BlockyardError as error:
        raise ProgramError(PROGRAM, error.told) from error


def _without_server(settings: Settings) -> None:
    from blockyard_tools.nbd.preparing import prepare, prepare_objects

    if settings.objects or settings.tls_creds is not None:
        from blockyard_tools.running import run

        run(prepare_objects, settings)
    else:
        prepare(settings)
    if settings.listing:
        from blockyard_tools.nbd.listing import list_exports

        list_exports(settings)
    else:
        from blockyard_tools.nbd.kernel import disconnect

        disconnect(settings.image)
        print(f"{settings.image} disconnected")


def _serve(settings: Settings, tracing: Tracing | None) -> int:
    """Fork if that is asked for, then import what may start threads."""
    from blockyard_tools.nbd.background import Background, into_background

    background = Background()
    if settings.fork or (settings.device is not None and not settings.verbose):
        background = into_background(verbose=settings.verbose)
    from blockyard_tools.nbd.addresses import listen_early
    from blockyard_tools.nbd.preparing import prepare

    if settings.tls_creds is None and not settings.objects:
        prepare(settings)
    with listen_early(settings) as listening:
        import anyio

        from blockyard_tools.nbd.serving import serve

        anyio.run(serve, settings, background, tracing, listening)
    return 0
