# SPDX-License-Identifier: Apache-2.0
"""fio as the client, and what one run of it yields."""

import json
import statistics
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from cases import Case
from servers import Running


@dataclass(frozen=True)
class Sample:
    """One run: requests a second, and server CPU seconds per million requests."""

    rate: float
    cpu: float


def fio_words(case: Case, uri: str, seconds: float) -> list[str]:
    """The client's command line; the URI may be a file's path."""
    nbd = ["--ioengine=nbd", f"--uri={uri}"]
    file = ["--ioengine=libaio", "--direct=1", f"--filename={uri}"]
    return [
        "fio",
        "--name=bench",
        *(file if uri.startswith("/") else nbd),
        f"--rw={case.rw}",
        f"--bs={case.block}",
        f"--iodepth={case.depth}",
        f"--numjobs={case.connections}",
        *(
            [f"--number_ios={case.requests}"]
            if case.requests
            else ["--time_based", f"--runtime={seconds * 1000:.0f}ms"]
        ),
        "--size=1g",
        "--group_reporting",
        "--norandommap",
        "--randrepeat=0",
        "--gtod_reduce=1",
        "--output-format=json",
    ]


def run(case: Case, server: Running, seconds: float) -> Sample:
    """One run of fio; RuntimeError with its words when it fails."""
    before = server.cpu()
    words = fio_words(case, server.uri, seconds)
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=seconds + 60)
    spent = server.cpu() - before
    # fio prints warnings before the JSON.
    start = done.stdout.find("{")
    if done.returncode or start < 0:
        raise RuntimeError(f"fio on {server.server.name}: {done.stdout}{done.stderr}")
    job = json.loads(done.stdout[start:])["jobs"][0]
    side = job["write" if "write" in case.rw else "read"]
    if not side["total_ios"]:
        raise RuntimeError(f"fio on {server.server.name} made no request: {done.stderr}")
    return Sample(side["iops"], spent / side["total_ios"] * 1e6)


def median(samples: Iterable[Sample]) -> Sample:
    """Rate and CPU, each by its own median."""
    taken = list(samples)
    return Sample(statistics.median(s.rate for s in taken), statistics.median(s.cpu for s in taken))
