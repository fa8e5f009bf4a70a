# SPDX-License-Identifier: Apache-2.0
"""Measure the programs for images: converting, comparing, checking, describing.

Every case is run by each program in turn, in rounds, and the medians of the rounds are
compared; only the ratios mean something on a machine that is not idle::

    python tools.py blockyard-img /usr/bin/qemu-img /opt/other/bin/qemu-img
    python tools.py --only to-qcow2 --rounds 9 --size 1024 blockyard-img qemu-img

The first program is the one that is asked about: its ratio is the fastest other one's time
by its own, so more than 1 is faster.
"""

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
CLUSTERS = 100_000
GIB_OF_CHECK = 100


@dataclass(frozen=True)
class Case:
    """What is run, with ``{raw}``, ``{qcow2}``, ``{large}`` and ``{out}`` for the images."""

    name: str
    words: tuple[str, ...]
    #: The least ratio that is asked for.
    required: float | None = None


CASES = (
    Case("to-qcow2", ("convert", "-f", "raw", "-O", "qcow2", "{raw}", "{out}"), 1.2),
    Case("to-raw", ("convert", "-f", "qcow2", "-O", "raw", "{qcow2}", "{out}"), 1.2),
    Case("zlib", ("convert", "-c", "-f", "raw", "-O", "qcow2", "{raw}", "{out}"), 0.95),
    Case(
        "zstd",
        (
            "convert",
            "-c",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-o",
            "compression_type=zstd",
            "{raw}",
            "{out}",
        ),
        0.95,
    ),
    Case("compare", ("compare", "-f", "raw", "-F", "qcow2", "{raw}", "{qcow2}"), 1.2),
    Case("check", ("check", "-f", "qcow2", "{large}")),
    Case("info", ("info", "-f", "qcow2", "{large}")),
)


def write_disk(path: Path, size: int) -> None:
    """A disk as disks are: a third noise, a third text, a sixth zeroes that are written, holes."""
    noise = random.Random(1)
    text = b"".join(b"%d bottles of beer on the wall, " % n for n in range(40_000))[:MIB]
    with path.open("wb") as file:
        for at in range(0, size, MIB):
            kind = at // MIB % 6
            file.seek(at)
            if kind < 2:
                file.write(noise.randbytes(MIB))
            elif kind < 4:
                shift = noise.randrange(MIB)
                file.write(text[shift:] + text[:shift])
            elif kind == 4:
                file.write(bytes(MIB))
        file.truncate(size)


def write_large(tool: str, path: Path) -> None:
    """A large qcow2 image with many clusters here and there."""
    gib = 1 << 30
    subprocess.run([tool, "create", "-q", "-f", "qcow2", path, f"{GIB_OF_CHECK}G"], check=True)
    step = GIB_OF_CHECK * gib // CLUSTERS // 65536 * 65536
    words = [f"write -q {n * step} 65536" for n in range(CLUSTERS)]
    subprocess.run(
        ["qemu-io", "-t", "unsafe", "-f", "qcow2", path],
        input="\n".join(words),
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )


@dataclass(frozen=True)
class Sample:
    """Seconds: passed, and of all processors."""

    wall: float
    cpu: float


def run(tool: str, case: Case, names: dict[str, Path]) -> Sample:
    """One run of the tool."""
    names["out"].unlink(missing_ok=True)
    words = [tool, *(word.format(**names) for word in case.words)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Sample(took, cpu)


def measure(tools: Sequence[str], case: Case, names: dict[str, Path], rounds: int) -> list[float]:
    """The tools' medians; the first round warms up and does not count.

    The order turns with each round: what one leaves in the page cache, the next one finds.
    """
    taken: list[list[Sample]] = [[] for _ in tools]
    for number in range(rounds + 1):
        for index in range(len(tools)):
            turn = (index + number) % len(tools)
            took = run(tools[turn], case, names)
            if number:
                taken[turn].append(took)
    return [
        Sample(statistics.median(s.wall for s in times), statistics.median(s.cpu for s in times))
        for times in taken
    ]


def ratio_of(medians: Sequence[Sample]) -> float:
    """The fastest peer's time by the first program's."""
    return min(sample.wall for sample in medians[1:]) / medians[0].wall


def told(case: Case, medians: Sequence[Sample]) -> str:
    """A line of the report: seconds and processor seconds of each, the ratios of both."""
    times = "  ".join(f"{sample.wall:8.3f} {sample.cpu:7.3f}" for sample in medians)
    thrift = min(sample.cpu for sample in medians[1:]) / medians[0].cpu
    wanted = f"(asked for: {case.required})" if case.required else ""
    return f"{case.name:10} {times}   {ratio_of(medians):5.2f} {thrift:5.2f} {wanted}"


def prepared(folder: Path, maker: str, size: int, cases: Sequence[Case]) -> dict[str, Path]:
    """The images that the cases need."""
    names = {name: folder / name for name in ("raw", "qcow2", "large", "out")}
    write_disk(names["raw"], size)
    subprocess.run(
        [maker, "convert", "-f", "raw", "-O", "qcow2", names["raw"], names["qcow2"]], check=True
    )
    if any("{large}" in case.words for case in cases):
        write_large(maker, names["large"])
    return names


def main() -> int:
    """Measure what is asked for; the status is 1 if a ratio is less than it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tools", nargs="+", metavar="PROGRAM", help="the first is asked about")
    parser.add_argument("--only", action="append", help="a case's name; may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512, help="MiB of the disk that is copied")
    parser.add_argument("--folder", help="where the images lie (default: the temporary folder)")
    given = parser.parse_args()
    if len(given.tools) < 2:
        parser.error("at least two programs are compared")
    cases = [case for case in CASES if not given.only or case.name in given.only]
    missed = 0
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        names = prepared(Path(folder), given.tools[1], given.size * MIB, cases)
        heads = "  ".join(f"{Path(tool).name[-13:]:>16}" for tool in given.tools)
        print(f"{'':10} {heads}   ratio   cpu")
        for case in cases:
            medians = measure(given.tools, case, names, given.rounds)
            print(told(case, medians), flush=True)
            missed += bool(case.required and ratio_of(medians) < case.required)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
