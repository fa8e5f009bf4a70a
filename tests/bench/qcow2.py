# SPDX-License-Identifier: Apache-2.0
"""Compare daemons on qcow2 images over NBD: requests per second, CPU per request.

As nbd.py: runs interleaved, medians compared, the first server is the subject.
Images are made by qemu-img.  Cases that allocate get a new image for each run and
end after a number of requests, before the image is full.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import report
from cases import Case
from client import Sample, median, run
from servers import Running, Server, default_servers

SIZE = 1 << 30
NODE = "driver=qcow2,node-name=disk,file.driver=file,file.filename={image}"
OVER = NODE + ",backing.driver=qcow2,backing.file.driver=file,backing.file.filename={image}.base"


def qemu_img(*words: str | Path) -> None:
    """Run qemu-img; its words on failure."""
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"qemu-img {words[0]}: {done.stderr.strip()}")


def raw(path: Path, *, compressible: bool = False) -> Path:
    """1 GiB that is not zero: noise, or text-like bytes that get three times smaller."""
    source = path.with_suffix(".raw")
    with source.open("wb", buffering=0) as file:
        for _ in range(SIZE >> 20):
            noise = os.urandom(1 << 18 if compressible else 1 << 20)
            file.write(noise.hex().encode() * 2 if compressible else noise)
    return source


def filled(piece: int) -> Callable[[Path], None]:
    """Every cluster allocated; written in pieces of that length (see nbd.make_image)."""

    def make(path: Path) -> None:
        source, made = raw(path), path.with_suffix(".made")
        qemu_img("convert", "-f", "raw", "-O", "qcow2", source, made)
        source.unlink()
        with made.open("rb") as old, path.open("wb", buffering=0) as new:
            while data := old.read(piece):
                new.write(data)
        made.unlink()

    return make


def packed(kind: str) -> Callable[[Path], None]:
    """Every cluster compressed."""

    def make(path: Path) -> None:
        source = raw(path, compressible=True)
        options = f"compression_type={kind}"
        qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, source, path)
        source.unlink()

    return make


def empty(path: Path) -> None:
    """Nothing allocated."""
    path.unlink(missing_ok=True)
    qemu_img("create", "-q", "-f", "qcow2", path, str(SIZE))


def overlay(path: Path) -> None:
    """Nothing allocated, over a full backing file that is made once."""
    base = path.with_name(path.name + ".base")
    if not base.exists():
        filled(4096)(base)
    path.unlink(missing_ok=True)
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path)


@dataclass(frozen=True)
class Work:
    """A case and its image; ``anew``: one for each run."""

    case: Case
    make: Callable[[Path], None]
    image: str
    anew: bool = False


WORKS = (
    Work(
        Case("read-4k-qd32", "randread", "4k", 32, node=NODE, required=2.0), filled(4096), "full-4k"
    ),
    Work(
        Case("write-4k-qd32", "randwrite", "4k", 32, node=NODE, required=2.0),
        filled(4096),
        "full-4k",
    ),
    Work(
        Case("allocate-4k-qd32", "randwrite", "4k", 32, node=NODE, required=1.5, requests=12000),
        empty,
        "empty",
        anew=True,
    ),
    Work(
        Case("overlay-4k-qd32", "randwrite", "4k", 32, node=OVER, required=1.3, requests=12000),
        overlay,
        "overlay",
        anew=True,
    ),
    Work(Case("read-1m-qd4", "read", "1m", 4, node=NODE, required=1.5), filled(1 << 20), "full-1m"),
    Work(
        Case("write-1m-qd4", "write", "1m", 4, node=NODE, required=1.5), filled(1 << 20), "full-1m"
    ),
    Work(
        Case("zlib-4k-qd32", "randread", "4k", 32, node=NODE, required=1.3), packed("zlib"), "zlib"
    ),
    Work(
        Case("zstd-4k-qd32", "randread", "4k", 32, node=NODE, required=1.3), packed("zstd"), "zstd"
    ),
)
BY_NAME = {work.case.name: work for work in WORKS}


def measure(
    work: Work, servers: list[Server], image: Path, runs: int, seconds: float
) -> report.Results:
    """All runs of one case, interleaved; the order turns by one each round."""
    samples: dict[str, list[Sample]] = {server.name: [] for server in servers}
    folder = image.parent
    for turn in range(runs):
        first = turn % len(servers)
        for server in servers[first:] + servers[:first]:
            if work.anew or not image.exists():
                work.make(image)
            log = folder / f"{server.name}.log"
            with Running(server, work.case.node, image, folder / "socket", log) as running:
                samples[server.name].append(run(work.case, running, seconds))
    return {name: median(taken) for name, taken in samples.items()}


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="a daemon to measure; repeat it; the first is the subject",
    )
    parser.add_argument("--cases", metavar="A,B", help=", ".join(BY_NAME))
    parser.add_argument("--runs", type=int, default=7, help="runs per daemon and case (7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run (2)")
    options = parser.parse_args()
    names = options.cases.split(",") if options.cases else list(BY_NAME)
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        parser.error(f"no case '{unknown[0]}'; there are {', '.join(BY_NAME)}")
    for program in ("fio", "qemu-img"):
        if not shutil.which(program):
            parser.error(f"{program} is not installed")
    try:
        servers = [Server.parse(text) for text in options.server] or default_servers()
        with tempfile.TemporaryDirectory(prefix="blockyard-bench-") as folder:
            for work in (BY_NAME[name] for name in BY_NAME if name in names):
                image = Path(folder) / f"{work.image}.qcow2"
                found = measure(work, servers, image, options.runs, options.seconds)
                print("\n".join(report.lines(work.case, found, servers[0].name, None)), flush=True)
    except (RuntimeError, ValueError) as error:
        print(f"qcow2.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
