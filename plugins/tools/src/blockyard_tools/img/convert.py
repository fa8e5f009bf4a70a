# SPDX-License-Identifier: Apache-2.0
"""``blockyard img convert``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from blockyard_tools.img.command import PROGRAM, Command, Opt, common, failed
from blockyard_tools.img.session import work
from blockyard_tools.opening import How, parse_cache

if TYPE_CHECKING:
    from blockyard.yard import Yard
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="convert",
    summary="Copy one or more images to another, changing the format on the way",
    usage="[-f SRC_FMT | --image-opts] [-T SRC_CACHE]\n"
    "[-l SNAPSHOT] [--bitmaps [--skip-broken-bitmaps]] [--salvage]\n"
    "[-O TGT_FMT | --target-image-opts] [-o TGT_FMT_OPTS] [-t TGT_CACHE]\n"
    "[-b BACKING_FILE [-F BACKING_FMT]] [-S SPARSE_SIZE]\n"
    "[-n] [--target-is-zero] [-c]\n"
    "[-U] [-r RATE] [-m NUM_PARALLEL] [-W] [-C] [-p] [-q] [--object OBJDEF]\n"
    "SRC_FILE [SRC_FILE2...] TGT_FILE",
    options=(
        Opt("source-format|f=", "the sources' format (default: found out by content)", "SRC_FMT"),
        Opt(
            "image-opts",
            "each SRC_FILE is options, key=value,..., and not a name (not together with -f)",
            also="source-image-opts",
        ),
        Opt("source-cache|T=", "how the sources are cached (default: writeback)", "SRC_CACHE"),
        Opt("snapshot|l=", "copy this snapshot, and not the disk", "SNAPSHOT", "source-snapshot="),
        Opt("bitmaps", "copy the source's persistent bitmaps as well"),
        Opt("skip-broken-bitmaps", "leave bitmaps out that are inconsistent"),
        Opt("salvage", "take what cannot be read for zeroes"),
        Opt("target-format|O=", "the new image's format (default: raw)", "TGT_FMT"),
        Opt("target-image-opts", "TGT_FILE is options; needs -n"),
        Opt(
            "target-format-options|o=",
            "options of the new image",
            "TGT_FMT_OPTS",
            "target-options=",
        ),
        Opt("target-cache|t=", "how the target is cached (default: unsafe)", "TGT_CACHE"),
        Opt(
            "backing|b=",
            "make the target an overlay of this image, and copy only what the "
            "source has itself (-B is the same)",
            "BACKING_FILE",
            "|B=",
        ),
        Opt("backing-format|F=", "the backing file's format", "BACKING_FMT"),
        Opt(
            "sparse-size|S=",
            "so many zero bytes in a row become a hole, a multiple of 512 "
            "(default: 4k; 0: write everything)",
            "SPARSE_SIZE",
        ),
        Opt("no-create|n", "write into a target that exists"),
        Opt("target-is-zero", "the target reads as zeroes already; needs -n"),
        Opt("compress|c", "compress the new image"),
        *common("force-share"),
        Opt("rate-limit|r=", "copy at most so many bytes in a second", "RATE", "rate="),
        Opt("parallel|m=", "requests at a time, 1 to 16 (default: 8)", "NUM_PARALLEL"),
        Opt("copy-range-offloading|C", "let the drivers copy by themselves where they can"),
        Opt("oob-writes|W", "write in any order, which suits preallocated targets and devices"),
        *common("progress", "quiet", "object"),
    ),
    words=(
        ("SRC_FILE", "the images to copy, one behind the other"),
        ("TGT_FILE", "the new image"),
    ),
    more="""\
Examples:
  qemu-img convert -O qcow2 disk.raw disk.qcow2
  qemu-img convert -c -o compression_type=zstd -O qcow2 disk.qcow2 small.qcow2
  qemu-img convert -l before-upgrade disk.qcow2 old.raw""",
)

_DEFAULT_SPARSE = 4096
_MAX_SPARSE = 32768 * 512
_MAX_PARALLEL = 16


@attrs.frozen(kw_only=True)
class Wish:
    """What the command line asks for."""

    sources: tuple[str, ...]
    target: str
    source: How
    target_how: How
    format: str
    options: str
    snapshot: str | None
    backing: str | None
    backing_format: str | None
    sparse: int
    rate: int
    parallel: int
    create: bool
    target_is_zero: bool
    compress: bool
    offload: bool
    in_order: bool
    salvage: bool
    bitmaps: bool
    skip_broken: bool
    quiet: bool
    progress: bool


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    from blockyard_tools.img.formatoptions import joined, print_help

    options, asked = joined(line.all("target-format-options") + line.all("target-options"))
    fmt = line.last("target-format")
    if asked:
        return print_help(line.words[-1] if line.words else None, fmt or "raw")
    wish = _wish(line, options, fmt)

    async def body(yard: Yard) -> int:
        from blockyard_tools.img.conversion import Conversion

        return await Conversion(yard, wish).run()

    return work(line, body)


def _wish(line: Line, options: str, fmt: str | None) -> Wish:
    sparse, parallel, rate = _sparse(line), _parallel(line), _rate(line)
    _refuse_offload(line)
    if line.has("target-is-zero") and not line.has("no-create"):
        raise failed("--target-is-zero requires use of -n flag")
    if line.has("skip-broken-bitmaps") and not line.has("bitmaps"):
        raise failed("Use of --skip-broken-bitmaps requires --bitmaps")
    if (line.has("image-opts") or line.has("source-image-opts")) and line.has("source-format"):
        raise failed("--image-opts and --format are mutually exclusive")
    if line.has("target-image-opts"):
        if not line.has("no-create"):
            raise failed("--target-image-opts requires use of -n flag")
        if fmt is not None:
            raise failed("-O and --target-image-opts are mutually exclusive")
    if len(line.words) < 2:
        raise failed("Must specify image file name")
    if line.has("no-create") and options:
        raise failed("-o has no effect when skipping image creation")
    backing = _last(line, "backing", "-B")
    if backing is not None and line.has("target-is-zero"):
        # Not an error for QEMU, though nothing is done.
        raise failed(
            "Cannot use --target-is-zero when the destination image has a backing file", status=0
        )
    source_cache = line.last("source-cache") or "writeback"
    target_cache = line.last("target-cache") or "unsafe"
    return Wish(
        sources=line.words[:-1],
        target=line.words[-1],
        source=How(
            format=line.last("source-format"),
            image_opts=line.has("image-opts") or line.has("source-image-opts"),
            cache=parse_cache(PROGRAM, source_cache, "source cache"),
            force_share=line.has("force-share"),
        ),
        target_how=How(
            format=None if line.has("target-image-opts") else fmt or "raw",
            image_opts=line.has("target-image-opts"),
            cache=parse_cache(PROGRAM, target_cache),
            writable=True,
            options={"discard": "unmap"} if sparse else {},
        ),
        format=fmt or "raw",
        options=options,
        snapshot=_last(line, "snapshot", "source-snapshot"),
        backing=backing,
        backing_format=line.last("backing-format"),
        sparse=sparse,
        rate=rate,
        parallel=parallel,
        create=not line.has("no-create"),
        target_is_zero=line.has("target-is-zero"),
        compress=line.has("compress"),
        offload=line.has("copy-range-offloading"),
        in_order=not line.has("oob-writes"),
        salvage=line.has("salvage"),
        bitmaps=line.has("bitmaps"),
        skip_broken=line.has("skip-broken-bitmaps"),
        quiet=line.has("quiet"),
        progress=line.has("progress") and not line.has("quiet"),
    )


def _last(line: Line, *names: str) -> str | None:
    given = [each.argument for each in line if each.name in names]
    return given[-1] if given else None


def _sparse(line: Line) -> int:
    from blockyard_tools.sizes import parse_number

    text = line.last("sparse-size")
    if text is None:
        return _DEFAULT_SPARSE
    size = parse_number(text)
    if size is None:
        raise failed(f"Invalid buffer size for sparse output specified: '{text}'.")
    if size % 512 or size > _MAX_SPARSE:
        raise failed(
            "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 "
            f"up to {_MAX_SPARSE}. Select 0 to disable sparse detection (fully allocates output)."
        )
    return size


def _parallel(line: Line) -> int:
    text = line.last("parallel")
    if text is None:
        return 8
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_PARALLEL:
        raise failed(
            f"Invalid number of coroutines specified. Must be between 1 and {_MAX_PARALLEL}."
        )
    return int(text)


def _rate(line: Line) -> int:
    from blockyard_tools.img.copying import rate_of

    return rate_of(_last(line, "rate-limit", "rate"))


def _refuse_offload(line: Line) -> None:
    """Copying that is left to the drivers looks at no data."""
    if line.has("copy-range-offloading"):
        if line.has("sparse-size"):
            raise failed("Cannot enable copy offloading when -S is used")
        if line.has("compress"):
            raise failed("Cannot enable copy offloading when -c is used")
        if line.has("salvage"):
            raise failed("Cannot use copy offloading in salvaging mode")
