# SPDX-License-Identifier: Apache-2.0
"""``blockyard img amend``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from blockyard.errors import InvalidOption
from blockyard_tools.img.command import Command, Opt, common, failed
from blockyard_tools.img.formatoptions import joined
from blockyard_tools.img.session import how_of, opened, work

if TYPE_CHECKING:
    from blockyard.creation import CreateOption
    from blockyard.image import Image
    from blockyard.yard import Yard
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="amend",
    summary="Update format-specific options of the image",
    usage="-o FMT_OPTS [-f FMT | --image-opts]\n"
    "[-t CACHE] [--force] [-p] [-q] [--object OBJDEF] FILE",
    options=(
        Opt("options|o=", "what to change, key=value,...; '-o help' lists it", "FMT_OPTS"),
        *common("format", "image-opts", "cache"),
        Opt("force", "allow what can make the data unreadable"),
        *common("progress", "quiet", "object"),
    ),
    words=(("FILE", "the image's name, or with --image-opts its options"),),
)


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    if not line.has("options"):
        raise COMMAND.wrong("Must specify options (-o)")
    options, asked = joined(line.all("options"))
    fmt = line.last("format")
    if asked and fmt is not None and not line.words:
        return _print_help(fmt)
    if len(line.words) != 1:
        raise failed("Expecting one image file name")
    how = how_of(COMMAND, line, writable=True)
    meter = _Meter(on=line.has("progress") and not line.has("quiet"))

    async def body(yard: Yard) -> int:
        async with opened(yard, line.words[0], how) as image:
            if asked:
                return _print_help(image.node.type.name)
            values = _values(image.node.type.name, options)
            await _amend(yard, image, values, meter, force=line.has("force"))
        return 0

    try:
        return work(line, body)
    finally:
        meter.end()


async def _amend(
    yard: Yard, image: Image, values: dict[str, str], meter: _Meter, *, force: bool
) -> None:
    async with yard.graph.writer, yard.graph.drained([image.node]):
        meter.show(0.0)
        try:
            await image.node.driver.remodel(values, force=force, tell=meter.tell)
        finally:
            meter.show(100.0)


def _known(fmt: str) -> tuple[CreateOption, ...]:
    """What can be amended.

    :raises ProgramError: if nothing can.
    """
    from blockyard.newimage import creation_of, driver_named
    from blockyard.plugins import default_registry

    creation = creation_of(driver_named(default_registry(), fmt))
    if creation is None or creation.amend is None:
        raise failed(f"Format driver '{fmt}' does not support option amendment")
    return creation.amend


def _print_help(fmt: str) -> int:
    from blockyard.creation import described

    print(f"Amend options for '{fmt}':\n{described(_known(fmt))}")
    return 0


def _values(fmt: str, text: str) -> dict[str, str]:
    """What is to be changed.

    :raises ProgramError: if there is no such option, or its value is none.
    """
    from blockyard.newimage import creation_of, driver_named
    from blockyard.plugins import default_registry
    from blockyard.schema.legacy import parse_legacy

    known = {option.name: option for option in _known(fmt)}
    values: dict[str, str] = {}
    for name, value in parse_legacy(text):
        if name not in known:
            creation = creation_of(driver_named(default_registry(), fmt))
            made = creation is not None and creation.named(name)
            hint = "\nThis option is only supported for image creation" if made else ""
            raise failed(f"Invalid parameter '{name}'{hint}")
        try:
            known[name].check(value)
        except InvalidOption as error:
            raise failed(str(error)) from error
        values[name] = value
    return values


class _Meter:
    """qemu-img's progress: each step that was done, as long as it is a percent at least."""

    def __init__(self, *, on: bool) -> None:
        self._on = on
        self._done = 0
        self._last = 0.0

    def tell(self, done: int, total: int) -> None:
        """``done`` of ``total`` steps."""
        for step in range(self._done + 1, done + 1):
            percent = 100 * step / total
            if percent - self._last >= 1 or step == total:
                self.show(percent)
        self._done = done

    def show(self, percent: float) -> None:
        """Print it."""
        if self._on:
            print(f"    ({percent:.2f}/100%)", end="\r", flush=True)
        self._last = percent

    def end(self) -> None:
        """No more."""
        if self._on:
            print(flush=True)
            sys.stdout.flush()
