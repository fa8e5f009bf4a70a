# SPDX-License-Identifier: Apache-2.0
"""Measure what a pass-through node costs, and what a driver in Python serves.

The first is the server's CPU per request with many raw nodes above a null
device, less that with none, divided by their number.  The second puts the
tutorial's driver, installed in a folder of its own, under fio at depth 32.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cases import Case
from client import median, run
from servers import Running, Server

_BARE = "driver=null-co,size=1073741824,node-name=disk"
_BELOW = "driver=null-co,size=1073741824"
_PYTHON = "driver=ram,node-name=disk,size=1073741824"
_TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="blockyard=blockyard-daemon", metavar="NAME=COMMAND")
    parser.add_argument("--layers", type=int, default=32, help="nodes in the high stack (32)")
    parser.add_argument("--runs", type=int, default=7, help="runs of each (7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run (2)")
    return parser


def stack(layers: int) -> str:
    """A null device under ``layers`` raw nodes."""
    if not layers:
        return _BARE
    below = ",".join(f"{'file.' * i}driver=raw" for i in range(1, layers))
    bottom = ",".join(f"{'file.' * layers}{option}" for option in _BELOW.split(","))
    return ",".join(part for part in ("driver=raw,node-name=disk", below, bottom) if part)


def high_and_low(server: Server, options: argparse.Namespace, folder: Path) -> None:
    """Interleave both stacks and print the difference, in pairs of runs."""
    cases = [Case("bare", "randread", "4k", 32, node=stack(0)),
             Case("high", "randread", "4k", 32, node=stack(options.layers))]  # fmt: skip
    costs, rates = [], []
    for _ in range(options.runs):
        cpu = []
        for case in cases:
            with Running(server, case.node, folder, folder / "socket", folder / "log") as running:
                sample = run(case, running, options.seconds)
            cpu.append(sample.cpu)
            rates.append(sample.rate)
        costs.append((cpu[1] - cpu[0]) * 1000 / options.layers)
    spread = f"{min(costs):.0f} to {max(costs):.0f}"
    print(f"pass-through node: {statistics.median(costs):.1f} ns of CPU a request ({spread})")


def python_driver(server: Server, options: argparse.Namespace, folder: Path) -> None:
    """The tutorial's driver under the same client."""
    where = folder / "plugins"
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
             "--target", str(where), str(_TUTORIAL)]  # fmt: skip
    subprocess.run(words, check=True)
    os.environ["PYTHONPATH"] = str(where)
    for rw in ("randread", "randwrite"):
        case = Case("python", rw, "4k", 32, node=_PYTHON)
        samples = []
        for _ in range(options.runs):
            with Running(server, case.node, folder, folder / "socket", folder / "log") as running:
                samples.append(run(case, running, options.seconds))
        found = median(samples)
        print(f"driver in Python, 4k {rw}: {found.rate:,.0f}/s, {found.cpu:.0f} us of CPU each")


def main() -> int:
    """Entry point."""
    options = arguments().parse_args()
    server = Server.parse(options.server)
    with tempfile.TemporaryDirectory(prefix="blockyard-bench-") as folder:
        high_and_low(server, options, Path(folder))
        python_driver(server, options, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
