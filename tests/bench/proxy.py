# SPDX-License-Identifier: Apache-2.0
"""Compare daemons as proxies: an NBD client node that is exported over NBD again.

All of them have the same server behind them, nbdkit with a disk of memory, which
``--origin`` replaces.  The rest is as in nbd.py: interleaved runs, medians, and the
first server named is the subject.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import report
from cases import BY_NAME, Case
from nbd import measure
from servers import START_LIMIT, Server, default_servers

NODE = "driver=nbd,node-name=disk,server.type=unix,server.path={image}"
ORIGIN = "nbdkit -f -U {socket} memory 1G"
NAMES = (
    "read-4k-qd32",
    "read-4k-qd1",
    "write-4k-qd32",
    "read-4k-2x-qd16",
    "read-1m-qd4",
    "write-1m-qd4",
)


def proxy_case(name: str) -> Case:
    """The case of nbd.py with the client node for a disk; nothing is required of it."""
    return replace(BY_NAME[name], node=NODE, required=None, ceiling=None, cpu=None)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--origin", default=ORIGIN, help=f"the server behind them ({ORIGIN})")
    parser.add_argument("--cases", default=",".join(NAMES), metavar="A,B")
    parser.add_argument("--runs", type=int, default=7, help="runs of each (7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run (2)")
    return parser


def wait_for(path: Path, process: "subprocess.Popen[bytes]") -> None:
    """Until the origin listens; RuntimeError when it does not."""
    deadline = time.perf_counter() + START_LIMIT
    while not path.exists():
        if process.poll() is not None or time.perf_counter() > deadline:
            raise RuntimeError("the origin did not start")
        time.sleep(0.01)


def main() -> int:
    """Entry point."""
    options = arguments().parse_args()
    servers = [Server.parse(text) for text in options.server] or default_servers()
    with tempfile.TemporaryDirectory(prefix="blockyard-proxy-") as name:
        folder = Path(name)
        path = folder / "origin"
        words = [word.format(socket=path) for word in shlex.split(options.origin)]
        origin = subprocess.Popen(words)
        try:
            wait_for(path, origin)
            for case in map(proxy_case, options.cases.split(",")):
                found = measure(case, servers, path, folder, options.runs, options.seconds)
                print("\n".join(report.lines(case, found, servers[0].name, "ceiling")), flush=True)
        finally:
            origin.terminate()
            origin.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
