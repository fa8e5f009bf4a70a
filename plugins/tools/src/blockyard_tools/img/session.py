# SPDX-License-Identifier: Apache-2.0
"""What the sub-commands' work has in common: opening images, and ending with their errors."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from blockyard.errors import BlockyardError
from blockyard_tools.img.command import PROGRAM, failed
from blockyard_tools.messages import speak_as
from blockyard_tools.objects import add_objects
from blockyard_tools.opening import How, open_image
from blockyard_tools.running import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from blockyard.image import Image
    from blockyard.permission import Perm
    from blockyard.yard import Yard
    from blockyard_tools.img.command import Command
    from blockyard_tools.options import Line

__all__ = ["announce", "how_of", "one_file", "opened", "output_of", "print_json", "size_of", "work"]


def work(line: Line, body: Callable[[Yard], Awaitable[int]]) -> int:
    """Run ``body`` in a yard that has the objects of ``--object``; answers its status.

    :raises ProgramError: if it fails; the text of a BlockyardError is told.
    """

    async def inside(yard: Yard) -> int:
        try:
            await add_objects(yard, line.all("object"))
            status = await body(yard)
        except BlockyardError as error:
            raise failed(str(error)) from error
        sys.stdout.flush()
        return status

    speak_as(PROGRAM)
    return run(inside)


@asynccontextmanager
async def opened(
    yard: Yard, name: str, how: How, *, perm: Perm | None = None, shared: Perm | None = None
) -> AsyncIterator[Image]:
    """An image, for ``async with``; it is closed at the end.

    :raises ProgramError: ``Could not open 'NAME': ...``
    """
    try:
        image = await open_image(yard, name, how, perm=perm, shared=shared)
    except BlockyardError as error:
        raise failed(f"Could not open '{name}': {error.told}") from error
    async with image:
        yield image


def how_of(command: Command, line: Line, **more: Any) -> How:
    """How the image is opened that ``-f``, ``--image-opts``, ``-U`` and their like describe.

    :raises ProgramError: if they contradict each other, or the cache mode is none.
    """
    from blockyard_tools.opening import parse_cache

    fmt = line.last("format")
    if line.has("image-opts") and fmt is not None:
        raise failed("--image-opts and --format are mutually exclusive")
    cache = line.last("cache")
    what = more.pop("cache_name", "cache")
    return How(
        format=fmt,
        image_opts=line.has("image-opts"),
        force_share=line.has("force-share"),
        cache=parse_cache(PROGRAM, cache, what) if cache is not None else "writeback",
        **more,
    )


def one_file(command: Command, line: Line, text: str = "Expecting one image file name") -> str:
    """The one word that there is.

    :raises ProgramError: if there are none, or more.
    """
    if len(line.words) != 1:
        raise command.wrong(text)
    return line.words[0]


def output_of(command: Command, line: Line) -> bool:
    """Whether ``--output`` asks for JSON.

    :raises ProgramError: if it asks for something else.
    """
    given = line.last("output") or "human"
    if given not in ("human", "json"):
        raise command.wrong(f"--output expects 'human' or 'json' not '{given}'")
    return given == "json"


def size_of(what: str, text: str, *, least: int = 0) -> int:
    """A size that an option or a word gives, ``what`` in complaints.

    :raises ProgramError: if it is none, or too large or small.
    """
    from blockyard_tools.sizes import MAX_SIZE, parse_number

    size = parse_number(text)
    if size is None:
        raise failed(f"Invalid {what} specified: '{text}'.")
    if not least <= size <= MAX_SIZE:
        raise failed(f"Invalid {what} specified. Must be between {least} and {MAX_SIZE}.")
    return size


def print_json(value: Any) -> None:
    """A value in QEMU's order of members, four spaces a level."""
    from blockyard.schema.jsontext import dumps
    from blockyard_tools.img.order import ordered

    print(dumps(ordered(value), pretty=True))


def announce(text: str) -> None:
    """A line on standard error, behind the program's name; what was printed comes before it."""
    sys.stdout.flush()
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)
