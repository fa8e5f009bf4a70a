# SPDX-License-Identifier: Apache-2.0
"""``blockyard io``: the command line of qemu-io."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from blockyard_tools.error import ProgramError
from blockyard_tools.options import Line, parse, spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockyard.yard import Yard
    from blockyard_tools.io.opening import Wishes
    from blockyard_tools.io.session import Session

__all__ = ["main"]

_PROGRAM = "qemu-io"
_SPEC = spec(
    "help|h", "version|V", "cmd|c=", "format|f=", "read-only|r", "snapshot|s", "nocache|n",
    "copy-on-read|C", "misalign|m", "native-aio|k", "aio|i=", "discard|d=", "cache|t=",
    "trace|T=", "force-share|U", "object=", "image-opts",
)  # fmt: skip
#: What says how the image is opened, in the letters of the command ``open``.
_WISHES = {
    "read-only": "r",
    "snapshot": "s",
    "nocache": "n",
    "copy-on-read": "C",
    "native-aio": "k",
    "aio": "i",
    "discard": "d",
    "cache": "t",
    "force-share": "U",
}


def main(words: Sequence[str]) -> int:
    """Run the program with these arguments; answers the exit status.

    :raises ProgramError: when it cannot go on.
    """
    # A short run ends before there is garbage worth looking for.
    gc.disable()
    try:
        line = parse(words, _SPEC, _PROGRAM)
    except ProgramError as error:
        status = error.report()
        _usage()
        return status
    if line.has("help"):
        return _usage()
    if line.has("version"):
        from blockyard.daemon.usage import version_text

        print(version_text(_PROGRAM), end="")
        return 0
    wishes = _wishes(line)
    if len(line.words) > 1:
        _usage()
        return 1
    if line.has("format") and line.has("image-opts"):
        raise ProgramError(_PROGRAM, "--image-opts and -f are mutually exclusive")
    from blockyard_tools.messages import speak_as
    from blockyard_tools.running import run

    speak_as(_PROGRAM)
    return run(_work, line, wishes)


def _usage() -> int:
    from blockyard_tools.io.usage import HELP

    print(HELP, end="")
    return 0


def _wishes(line: Line) -> Wishes:
    """How the first image is to be opened; the options are taken in their order."""
    from blockyard_tools.io.opening import Wishes

    wishes = Wishes()
    for option in line:
        letter = _WISHES.get(option.name)
        if letter is not None and not wishes.take(letter, option.argument or ""):
            raise ProgramError(_PROGRAM)
        if option.name == "trace":
            _trace(option.argument or "")
    return wishes


def _trace(text: str) -> None:
    from blockyard.daemon.tracing import Tracing
    from blockyard.errors import BlockyardError

    try:
        if not Tracing(_PROGRAM).option(text):
            raise ProgramError(_PROGRAM, status=0)
    except BlockyardError as error:
        raise ProgramError(_PROGRAM, str(error)) from error


async def _work(yard: Yard, line: Line, wishes: Wishes) -> int:
    from blockyard.errors import BlockyardError
    from blockyard_tools.io.session import Session

    session = Session(yard, misaligned=line.has("misalign"))
    if line.has("object"):
        from blockyard_tools.objects import add_objects

        try:
            await add_objects(yard, line.all("object"))
        except BlockyardError as error:
            raise ProgramError(_PROGRAM, str(error)) from error
    try:
        if line.words and not await _open_first(session, line, wishes):
            return 1
        await _carry_out(session, line.all("cmd"))
        await session.leave()
        return 1 if session.failed else 0
    finally:
        session.output.flush()


async def _open_first(session: Session, line: Line, wishes: Wishes) -> bool:
    from blockyard_tools.io.opening import open_into
    from blockyard_tools.opening import image_options

    (name,) = line.words
    if line.has("image-opts"):
        return await open_into(session, None, wishes, image_options(name, _PROGRAM))
    fmt = line.last("format")
    return await open_into(session, name, wishes, {} if fmt is None else {"driver": fmt})


async def _carry_out(session: Session, commands: Sequence[str]) -> None:
    if commands:
        for command in commands:
            await session.run(command)
        return
    from blockyard_tools.io.reader import typed

    async for command in typed(session.output):
        await session.run(command)
        if session.finished:
            return
