# SPDX-License-Identifier: Apache-2.0
"""Compare daemons at rest: time from exec to accepting, and idle memory.

Each daemon serves a raw image on a unix socket.  The clock stops when a client
that connects is greeted.  Memory is read after half a second without a client.
"""

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from cases import FILE
from servers import Running, Server, default_servers

_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|(\s+)(\S+)")


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="a daemon to measure, as nbd.py takes it; repeat it",
    )
    parser.add_argument("--runs", type=int, default=9, help="starts per daemon (9)")
    parser.add_argument(
        "--imports",
        type=int,
        default=15,
        metavar="N",
        help="show the N slowest imports of servers in Python (15)",
    )
    return parser


def rest(server: Server, image: Path, folder: Path) -> tuple[float, float, int, int]:
    """Seconds to the greeting, CPU seconds so far; resident bytes, and the process's own."""
    with Running(server, FILE, image, folder / "socket", folder / "log") as running:
        cpu = running.cpu()
        time.sleep(0.5)
        return running.startup, cpu, *running.memory()


def import_report(server: Server, image: Path, folder: Path, count: int) -> list[str]:
    """The slowest imports by themselves; empty when the server is not Python."""
    os.environ["PYTHONPROFILEIMPORTTIME"] = "1"
    try:
        with Running(server, FILE, image, folder / "socket", folder / "log"):
            pass
    finally:
        del os.environ["PYTHONPROFILEIMPORTTIME"]
    found = _IMPORT.findall((folder / "log").read_text(errors="replace"))
    slowest = sorted(found, key=lambda row: -int(row[0]))[:count]
    total = sum(int(own) for own, _, _, _ in found) / 1000
    head = [f"imports of {server.name}: {len(found)} modules, {total:.0f} ms with profiling"]
    rows = [f"  {int(own) / 1000:6.1f} ms  {name}" for own, _, _, name in slowest]
    return head + rows if found else []


def main() -> int:
    """Entry point."""
    options = arguments().parse_args()
    servers = [Server.parse(text) for text in options.server] or default_servers()
    with tempfile.TemporaryDirectory(prefix="blockyard-bench-") as name:
        folder = Path(name)
        image = folder / "bench.img"
        with image.open("wb") as file:
            file.truncate(1 << 30)
        taken: dict[str, list[tuple[float, float, int, int]]] = {s.name: [] for s in servers}
        for _ in range(options.runs):
            for server in servers:
                taken[server.name].append(rest(server, image, folder))
        for server in servers:
            columns = zip(*taken[server.name], strict=True)
            start, cpu, rss, own = (statistics.median(column) for column in columns)
            times = f"{start * 1000:6.0f} ms to accepting ({cpu * 1000:.0f} ms CPU)"
            print(
                f"{server.name:<12} {times} {rss / 2**20:6.1f} MiB idle ({own / 2**20:.1f} its own)"
            )
        for server in servers:
            print("\n".join(import_report(server, image, folder, options.imports)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
