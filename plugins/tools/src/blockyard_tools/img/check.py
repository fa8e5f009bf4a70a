# SPDX-License-Identifier: Apache-2.0
"""``blockyard img check``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import attrs

from blockyard_tools.img.command import Command, Opt, common, failed
from blockyard_tools.img.session import how_of, one_file, opened, output_of, print_json, work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockyard.image import Image
    from blockyard.imagework import CheckResult, Fix
    from blockyard.yard import Yard
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="check",
    summary="Check basic image integrity",
    usage="[-f FMT | --image-opts] [-T CACHE_MODE] [-r leaks|all]\n"
    "[-U] [--output human|json] [-q] [--object OBJDEF] FILE",
    options=(
        *common("format", "image-opts"),
        Opt("cache|T=", "how the host's cache is used (default: writeback)", "CACHE_MODE"),
        Opt("repair|r=", "mend leaks, or all that can be mended", "leaks|all"),
        *common("force-share", "output", "quiet", "object"),
    ),
    words=(("FILE", "the image's name, or with --image-opts its options"),),
    more="""\
Exit status:
  0  nothing is wrong, or everything was mended
  1  the check could not be done
  2  the image is corrupt
  3  clusters are leaked, which wastes space and harms no data
  63 the format has no check""",
)

_CORRUPT, _LEAKS, _UNSUPPORTED = 2, 3, 63


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    fix = _fix(line.last("repair"))
    as_json = output_of(COMMAND, line)
    name = one_file(COMMAND, line)
    how = how_of(COMMAND, line, writable=bool(fix), checking=True, cache_name="source cache")
    quiet = line.has("quiet")

    async def body(yard: Yard) -> int:
        async with opened(yard, name, how) as image:
            result = await _checked(image, fix, tell_repairs=not (as_json or quiet))
            told = {"filename": name, "format": image.node.type.name}
        if not quiet:
            _report(result, told, as_json=as_json)
        if result.check_errors:
            return 1
        if result.corruptions:
            return _CORRUPT
        return _LEAKS if result.leaks else 0

    return work(line, body)


def _fix(text: str | None) -> Fix:
    from blockyard.imagework import Fix

    known = {None: Fix.NONE, "leaks": Fix.LEAKS, "all": Fix.LEAKS | Fix.ERRORS}
    if text not in known:
        raise COMMAND.wrong(f"--repair (-r) expects 'leaks' or 'all' not '{text}'")
    return known[text]


async def _checked(image: Image, fix: Fix, *, tell_repairs: bool) -> CheckResult:
    """Check, and once more when something was repaired."""
    from blockyard.errors import ImageIOError, Unsupported

    try:
        result = await image.check(fix, _tell)
        if not (result.corruptions_fixed or result.leaks_fixed):
            return result
        if tell_repairs:
            print(
                "The following inconsistencies were found and repaired:\n\n"
                f"    {result.leaks_fixed} leaked clusters\n"
                f"    {result.corruptions_fixed} corruptions\n\n"
                "Double checking the fixed image now...",
                flush=True,
            )
        again = await image.check(tell=_tell)
    except Unsupported:
        raise failed("This image format does not support checks", _UNSUPPORTED) from None
    except ImageIOError as error:
        raise failed(f"Check failed: {error}") from error
    return attrs.evolve(
        again, leaks_fixed=result.leaks_fixed, corruptions_fixed=result.corruptions_fixed
    )


def _tell(finding: str) -> None:
    sys.stdout.flush()
    print(finding, file=sys.stderr, flush=True)


def _report(result: CheckResult, told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(result, told))
    else:
        print("\n".join(_lines(result)))


def _as_json(result: CheckResult, told: dict[str, Any]) -> dict[str, Any]:
    """QAPI ImageCheck: what is nothing is left out."""
    found = {
        "corruptions": result.corruptions,
        "leaks": result.leaks,
        "corruptions-fixed": result.corruptions_fixed,
        "leaks-fixed": result.leaks_fixed,
        "total-clusters": result.total_clusters,
        "allocated-clusters": result.allocated_clusters,
        "fragmented-clusters": result.fragmented_clusters,
        "compressed-clusters": result.compressed_clusters,
        "image-end-offset": result.image_end_offset,
    }
    kept = {name: value for name, value in found.items() if value}
    return {**told, "check-errors": result.check_errors, **kept}


def _lines(result: CheckResult) -> Iterator[str]:
    if not (result.corruptions or result.leaks or result.check_errors):
        yield "No errors were found on the image."
    if result.corruptions:
        yield f"\n{result.corruptions} errors were found on the image."
        yield "Data may be corrupted, or further writes to the image may corrupt it."
    if result.leaks:
        yield f"\n{result.leaks} leaked clusters were found on the image."
        yield "This means waste of disk space, but no harm to data."
    if result.check_errors:
        yield f"\n{result.check_errors} internal errors have occurred during the check."
    if result.total_clusters and result.allocated_clusters:
        allocated = result.allocated_clusters
        yield (
            f"{allocated}/{result.total_clusters} = "
            f"{allocated * 100 / result.total_clusters:.2f}% allocated, "
            f"{result.fragmented_clusters * 100 / allocated:.2f}% fragmented, "
            f"{result.compressed_clusters * 100 / allocated:.2f}% compressed clusters"
        )
    if result.image_end_offset:
        yield f"Image end offset: {result.image_end_offset}"
