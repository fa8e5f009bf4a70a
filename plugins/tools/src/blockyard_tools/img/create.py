# SPDX-License-Identifier: Apache-2.0
"""``blockyard img create``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.errors import BlockyardError
from blockyard_tools.img.command import Command, Opt, common, failed
from blockyard_tools.img.formatoptions import joined, print_help
from blockyard_tools.img.session import size_of, work

if TYPE_CHECKING:
    from blockyard.newimage import NewImage
    from blockyard.yard import Yard
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="create",
    summary="Create and format a new image file",
    usage="[-f FMT] [-o FMT_OPTS] [-b BACKING_FILE [-B BACKING_FMT]] [-u]\n"
    "[-q] [--object OBJDEF] FILE [SIZE]",
    options=(
        Opt("format|f=", "the new image's format (default: raw)", "FMT"),
        Opt("options|o=", "the format's options, key=value,...; '-o help' lists them", "FMT_OPTS"),
        Opt(
            "backing|b=",
            "make an overlay: what nobody wrote to it is read from this file",
            "BACKING_FILE",
        ),
        Opt(
            "backing-format|B=",
            "the backing file's format; it has to be given (-F is the same)",
            "BACKING_FMT",
            also="|F=",
        ),
        Opt("backing-unsafe|u", "do not look at the backing file; the size has to be given"),
        *common("quiet", "object"),
    ),
    words=(
        ("FILE", "the new image's name; a file of that name is overwritten"),
        (
            "SIZE",
            "bytes, or with a suffix: k, M, G, T, P, E (default: as large as the backing file)",
        ),
    ),
    more="""\
Examples:
  qemu-img create -f qcow2 disk.qcow2 20G
  qemu-img create -f qcow2 -b base.qcow2 -B qcow2 overlay.qcow2
  qemu-img create -f qcow2 -o help""",
)


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    fmt = line.last("format") or "raw"
    options, asked = joined(line.all("options"))
    if not line.words and not asked:
        raise COMMAND.wrong("Expecting image file name")
    if len(line.words) > 2:
        raise COMMAND.wrong(f"Unexpected argument: {line.words[2]}")
    name = line.words[0] if line.words else None
    size = size_of("image size", line.words[1]) if len(line.words) > 1 else None
    if asked:
        return print_help(name, fmt)

    async def body(yard: Yard) -> int:
        assert name is not None
        try:
            await _create(yard, line, name, fmt, options, size)
        except BlockyardError as error:
            raise failed(f"{name}: {error}") from error
        return 0

    return work(line, body)


async def _create(
    yard: Yard, line: Line, name: str, fmt: str, options: str, size: int | None
) -> None:
    from blockyard.newimage import NewImage, make_image
    from blockyard.newoverlay import Backing, settle

    new = await NewImage.find(yard.registry, name, fmt)
    new.take(options)
    formats = [each.argument for each in line if each.name in ("backing-format", "-F")]
    backing = Backing(
        file=line.last("backing"),
        format=formats[-1] if formats else None,
        opened=not line.has("backing-unsafe"),
    )
    await settle(yard, new, size, backing)
    if not line.has("quiet"):
        _tell(new)
    await make_image(yard, new)


def _tell(new: NewImage) -> None:
    print(f"Formatting '{new.filename}', fmt={new.driver.name} {new.told()}".rstrip(), flush=True)
