# SPDX-License-Identifier: Apache-2.0
"""Compare NBD daemons: requests per second and server CPU per request.

Every case starts each daemon afresh on the same image, lets fio's nbd engine at
it, and goes round: run 1 of all daemons, run 2 of all daemons, so that whatever
else the machine does hits all alike.  Medians are compared.  The first server
named is the subject; the others are its peers.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import report
from cases import BY_NAME, CASES, Case
from client import Sample, median, run
from servers import Running, Server, default_servers

EXAMPLES = """\
examples:
  python tests/bench/nbd.py
      blockyard-daemon against the qemu-storage-daemon on PATH ($BLOCKYARD_QSD), all cases
  python tests/bench/nbd.py --server ours=blockyard-daemon \\
      --server q10=qemu-storage-daemon --server q11=/opt/q11/bin/qemu-storage-daemon
      two peers in the same interleaving; ratios to each and to the faster one
  python tests/bench/nbd.py --server q10=qemu-storage-daemon \\
      --server q10n,aio=native=qemu-storage-daemon
      daemons take their options as they come; aio= sets the file driver's for O_DIRECT
  python tests/bench/nbd.py --cases read-4k-qd32,write-4k-qd32 --runs 11 --seconds 4
  python tests/bench/nbd.py --server nbdkit='nbdkit -f -U {socket} file {image}' --server ...
      any server: {image}, {socket} and {node} are filled in; the export's name
      that clients ask for is 'bench'.  A command without {socket} gets
      --blockdev {node} --nbd-server ... --export ... as qemu-storage-daemon takes them.

reading the table: /s is the median of requests per second, 'us CPU' the server's
user and system time per request (from /proc/PID/stat).  Differences below 10 % are
ties.  'ceiling' is a server that answers at once without any disk: no server lets
this client go faster.  The image should fit the page cache; an idle machine helps.
"""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="NAME[,aio=HOW]=COMMAND",
        help="a daemon to measure; repeat it; the first is the subject",
    )
    parser.add_argument("--cases", metavar="A,B", help=", ".join(BY_NAME))
    parser.add_argument("--runs", type=int, default=7, help="runs per daemon and case (7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run (2)")
    parser.add_argument(
        "--image", type=Path, help="raw image of 1 GiB to use; overwritten! (new ones)"
    )
    parser.add_argument(
        "--no-ceiling", action="store_true", help="leave the server without a disk out"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser


def make_image(path: Path, piece: int) -> None:
    """1 GiB without holes and without anything that compresses, written in pieces.

    The pieces are as long as the case's requests.  Long ones leave large folios in
    the page cache, which help long requests; but ext4 walks all of a folio's blocks
    at each small write, which costs every server alike ten times what it does
    itself (seen on Linux 6.18).
    """
    with path.open("wb", buffering=0) as file:
        for _ in range(256):
            chunk = os.urandom(4 << 20)
            for offset in range(0, len(chunk), piece):
                file.write(chunk[offset : offset + piece])
        os.fsync(file.fileno())


def build_ceiling(folder: Path) -> Server | None:
    """Compile instant.c; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        return None
    program = folder / "instant"
    source = Path(__file__).with_name("instant.c")
    subprocess.run([compiler, "-O2", "-o", str(program), str(source)], check=True)
    return Server("ceiling", f"{program} {{socket}}")


def measure(
    case: Case, servers: list[Server], image: Path, folder: Path, runs: int, seconds: float
) -> report.Results:
    """All runs of one case, interleaved; the order turns by one each round."""
    samples: dict[str, list[Sample]] = {server.name: [] for server in servers}
    for turn in range(runs):
        first = turn % len(servers)
        for server in servers[first:] + servers[:first]:
            log = folder / f"{server.name}.log"
            with Running(server, case.node, image, folder / "socket", log) as running:
                samples[server.name].append(run(case, running, seconds))
    return {name: median(taken) for name, taken in samples.items()}


def compare(options: argparse.Namespace, cases: list[Case], folder: Path) -> None:
    """Measure and print case by case."""
    servers = [Server.parse(text) for text in options.server] or default_servers()
    ceiling = None if options.no_ceiling else build_ceiling(folder)
    results = []
    for case in cases:
        image = options.image or folder / f"bench-{case.block}.img"
        if not options.image and not image.exists():
            make_image(image, {"4k": 4096, "1m": 1 << 20}[case.block])
        # The server without a disk keeps no CPU figures: it forks, and its null
        # reads are not sent as holes.
        extra = [ceiling] if ceiling and case.node != BY_NAME["null-1m-qd4"].node else []
        found = measure(case, servers + extra, image, folder, options.runs, options.seconds)
        print("\n".join(report.lines(case, found, servers[0].name, "ceiling")), flush=True)
        results.append(report.as_data(case, found))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def main() -> int:
    """Entry point."""
    parser = arguments()
    options = parser.parse_args()
    names = options.cases.split(",") if options.cases else list(BY_NAME)
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        parser.error(f"no case '{unknown[0]}'; there are {', '.join(BY_NAME)}")
    if not shutil.which("fio"):
        parser.error("fio is not installed (Debian: apt-get install fio)")
    try:
        with tempfile.TemporaryDirectory(prefix="blockyard-bench-") as folder:
            compare(options, [c for c in CASES if c.name in names], Path(folder))
    except (RuntimeError, ValueError) as error:
        print(f"nbd.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
