# SPDX-License-Identifier: Apache-2.0
"""``blockyard img resize``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard_tools.img.command import Command, Opt, common, failed
from blockyard_tools.img.session import announce, how_of, opened, work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockyard.request import Preallocation
    from blockyard.yard import Yard
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]


class _Resize(Command):
    """SIZE may begin with a dash, and is no option then: it is the last word in any case."""

    def parse(self, words: Sequence[str]) -> Line:
        """The options in ``words``; a size that looks like one is taken for a word."""
        rest = list(words)
        size = rest.pop() if len(rest) > 1 and rest[-1][:1] == "-" and rest[-1] != "-h" else None
        if size == "--help":
            rest, size = [*rest, size], None
        return super().parse(rest if size is None else [*_before(rest), "--", *_after(rest), size])


def _before(words: list[str]) -> list[str]:
    return words[: words.index("--")] if "--" in words else words


def _after(words: list[str]) -> list[str]:
    return words[words.index("--") + 1 :] if "--" in words else []


COMMAND = _Resize(
    name="resize",
    summary="Resize the image",
    usage="[-f FMT | --image-opts] [--preallocation PREALLOC] [--shrink]\n"
    "[-q] [--object OBJDEF] FILE [+-]SIZE",
    options=(
        *common("format", "image-opts"),
        Opt("preallocation=", "how much of what is added is allocated at once", "PREALLOC"),
        Opt("shrink", "allow the image to become smaller, which loses data"),
        *common("quiet", "object"),
    ),
    words=(
        ("FILE", "the image's name, or with --image-opts its options"),
        (
            "[+-]SIZE",
            "its new size, or with a sign its change; bytes, or with a suffix k, M, G, T, P, E",
        ),
    ),
)

_SHRINK = (
    "Shrinking an image will delete all data beyond the shrunken image's end. Before performing "
    "such an operation, make sure there is no important data there."
)


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    prealloc = _prealloc(line.last("preallocation") or "off")
    if len(line.words) < 2:
        raise COMMAND.wrong("Expecting image file name and size")
    if len(line.words) > 2:
        raise COMMAND.wrong("Extra argument(s) in command line")
    name, text = line.words
    sign = {"+": 1, "-": -1}.get(text[:1], 0)
    amount = _amount(text[1:] if sign else text)
    how = how_of(COMMAND, line, writable=True)

    async def body(yard: Yard) -> int:
        async with opened(yard, name, how) as image:
            total = image.length + sign * amount if sign else amount
            _check(image.length, total, prealloc, shrink=line.has("shrink"))
            await yard.graph.resize(image.node, total, prealloc)
        if not line.has("quiet"):
            print("Image resized.")
        return 0

    return work(line, body)


def _prealloc(text: str) -> Preallocation:
    from blockyard.request import Preallocation

    try:
        return Preallocation[text.upper()]
    except KeyError:
        raise failed(f"Invalid preallocation mode '{text}'") from None


def _amount(text: str) -> int:
    from blockyard.creation import SIZE
    from blockyard.errors import InvalidOption
    from blockyard_tools.sizes import parse_size

    try:
        SIZE.check(text)
    except InvalidOption as error:
        raise failed(str(error)) from error
    return parse_size(text) or 0


def _check(present: int, total: int, prealloc: Preallocation, *, shrink: bool) -> None:
    from blockyard_tools.sizes import MAX_SIZE

    if total <= 0 or total > MAX_SIZE:
        raise failed("New image size must be positive")
    if total <= present and prealloc:
        raise failed("Preallocation can only be used for growing images")
    if total < present and not shrink:
        announce("Use the --shrink option to perform a shrink operation.")
        raise failed(f"warning: {_SHRINK}")
