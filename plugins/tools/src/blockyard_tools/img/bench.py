# SPDX-License-Identifier: Apache-2.0
"""``blockyard img bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.errors import ImageIOError
from blockyard_tools.img.command import Command, Opt, common, failed
from blockyard_tools.img.numbers import INT_MAX, bounded
from blockyard_tools.img.session import one_file, opened, work
from blockyard_tools.opening import CACHE_MODES, How

if TYPE_CHECKING:
    from blockyard.bencher import Bench
    from blockyard.yard import Yard
    from blockyard_tools.options import Line

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="bench",
    summary="Run a simple image benchmark",
    usage="[-f FMT | --image-opts] [-t CACHE]\n"
    "[-c COUNT] [-d DEPTH] [-o OFFSET] [-s BUFFER_SIZE] [-S STEP_SIZE]\n"
    "[-w [--pattern PATTERN] [--flush-interval INTERVAL [--no-drain]]]\n"
    "[-i AIO] [-n] [-U] [-q] [--object OBJDEF] FILE",
    options=(
        *common("format", "image-opts", "cache"),
        Opt("count|c=", "how many requests (default: 75000)", "COUNT"),
        Opt("depth|d=", "how many at a time (default: 64)", "DEPTH"),
        Opt("offset|o=", "where the first begins (default: 0)", "OFFSET"),
        Opt("buffer-size|s=", "bytes of a request (default: 4k)", "BUFFER_SIZE"),
        Opt("step-size|S=", "bytes from one to the next (default: a request's)", "STEP_SIZE"),
        Opt("write|w", "write, and not read"),
        Opt("pattern=", "the byte that is written (default: 0)", "PATTERN"),
        Opt("flush-interval=", "flush after so many requests", "INTERVAL"),
        Opt("no-drain", "flush without waiting for the writes before"),
        Opt("aio|i=", "how the host's files are asked: threads, native or io_uring", "AIO"),
        Opt("native|n", "the same as -i native"),
        *common("force-share", "quiet", "object"),
    ),
    words=(("FILE", "the image's name, or with --image-opts its options"),),
    more="""\
Example:
  qemu-img bench -c 100000 -d 32 -t none -f raw disk.raw""",
)

_AIO = ("threads", "native", "io_uring")


def main(line: Line) -> int:
    """Run it.

    :raises ProgramError: if it fails.
    """
    aio = _aio(line)
    cache = line.last("cache") or "writeback"
    if cache not in CACHE_MODES:
        raise failed("Invalid cache mode")
    bench = _bench(line)
    name = one_file(COMMAND, line)
    if line.has("image-opts") and line.has("format"):
        raise failed("--image-opts and --format are mutually exclusive")
    if line.last("flush-interval") is not None and not bench.write:
        raise failed("--flush-interval is only available in write tests")
    if bench.flush_interval and bench.flush_interval < bench.depth:
        raise failed("Flush interval can't be smaller than depth")
    how = How(
        format=line.last("format"),
        image_opts=line.has("image-opts"),
        writable=bench.write,
        cache=cache,
        force_share=line.has("force-share"),
        options={"file.aio": aio} if aio else {},
    )

    async def body(yard: Yard) -> int:
        from blockyard.bencher import Bencher

        async with opened(yard, name, how) as image:
            _tell(bench)
            try:
                seconds = await Bencher(yard.control, image.root, bench).run()
            except ImageIOError as error:
                raise failed(f"Failed request: {error}") from error
            print(f"Run completed in {seconds:.3f} seconds.")
        return 0

    return work(line, body)


def _aio(line: Line) -> str | None:
    given = [
        "native" if each.name == "native" else each.argument
        for each in line
        if each.name in ("aio", "native")
    ]
    for aio in given:
        if aio not in _AIO:
            raise failed(f"Invalid aio option: {aio}")
    return given[-1] if given else None


def _bench(line: Line) -> Bench:
    from blockyard.bencher import Bench

    def number(option: str, what: str, low: int, high: int, default: int) -> int:
        text = line.last(option)
        return default if text is None else bounded(text, what, low, high)

    count = number("count", "request count", 1, INT_MAX, 75000)
    depth = number("depth", "queue depth", 1, INT_MAX, 64)
    offset = number("offset", "offset", 0, (1 << 63) - 1, 0)
    size = number("buffer-size", "buffer size", 1, INT_MAX, 4096)
    return Bench(
        count=count,
        depth=depth,
        bytes=size,
        offset=offset,
        step=number("step-size", "step size", 0, INT_MAX, 0) or size,
        write=line.has("write"),
        pattern=number("pattern", "pattern byte", 0, 255, 0),
        flush_interval=number("flush-interval", "flush interval", 0, INT_MAX, 0),
        drain=not line.has("no-drain"),
    )


def _tell(bench: Bench) -> None:
    kind = "write" if bench.write else "read"
    print(
        f"Sending {bench.count} {kind} requests, {bench.bytes} bytes each, {bench.depth} in "
        f"parallel (starting at offset {bench.offset}, step size {bench.step})"
    )
    if bench.flush_interval:
        print(f"Sending flush every {bench.flush_interval} requests")
