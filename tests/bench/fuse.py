# SPDX-License-Identifier: Apache-2.0
"""Compare daemons on files that FUSE exports show: requests per second, CPU per request.

As nbd.py: runs interleaved, medians compared, the first server is the subject.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import report
from cases import Case
from client import Sample, median, run
from servers import Running, Server, default_servers

SIZE = 1 << 30
EXPORT = (
    " --blockdev {node} --export type=fuse,id=bench,node-name=disk,writable=on,mountpoint={socket}"
)
CASES = (
    Case("read-4k-qd1", "randread", "4k", 1, required=1.3),
    Case("read-4k-qd16", "randread", "4k", 16, required=1.3),
    Case("write-4k-qd16", "randwrite", "4k", 16),
    Case("read-1m-qd4", "read", "1m", 4, required=1.3),
    Case("write-1m-qd4", "write", "1m", 4),
)
BY_NAME = {case.name: case for case in CASES}


class Mounted(Running):
    """A daemon that shows its image at ``path``."""

    def prepare(self) -> None:
        """An empty file to mount on."""
        self.path.touch()

    def greets(self) -> bool:
        """Whether the file has the image's length."""
        return self.path.stat().st_size == SIZE

    @property
    def uri(self) -> str:
        """The file."""
        return str(self.path)


def make_image(path: Path) -> None:
    """1 GiB that is not zero."""
    with path.open("wb", buffering=0) as file:
        for _ in range(SIZE >> 20):
            file.write(os.urandom(1 << 20))


def measure(
    case: Case, servers: list[Server], image: Path, runs: int, seconds: float
) -> report.Results:
    """All runs of one case, interleaved; the order turns by one each round."""
    samples: dict[str, list[Sample]] = {server.name: [] for server in servers}
    folder = image.parent
    for turn in range(runs):
        first = turn % len(servers)
        for server in servers[first:] + servers[:first]:
            log = folder / f"{server.name}.log"
            with Mounted(server, case.node, image, folder / "file", log) as running:
                samples[server.name].append(run(case, running, seconds))
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
    if not shutil.which("fio"):
        parser.error("fio is not installed")
    try:
        found = [Server.parse(text) for text in options.server] or default_servers()
        servers = [Server(each.name, each.command + EXPORT, each.aio) for each in found]
        with tempfile.TemporaryDirectory(prefix="blockyard-bench-") as folder:
            image = Path(folder) / "disk.img"
            make_image(image)
            for case in (BY_NAME[name] for name in BY_NAME if name in names):
                results = measure(case, servers, image, options.runs, options.seconds)
                print("\n".join(report.lines(case, results, servers[0].name, None)), flush=True)
    except (RuntimeError, ValueError) as error:
        print(f"fuse.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
