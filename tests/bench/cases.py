# SPDX-License-Identifier: Apache-2.0
"""The workloads that daemons are compared on."""

from dataclasses import dataclass

FILE = "driver=raw,node-name=disk,file.driver=file,file.filename={image}"
DIRECT = ",cache.direct=on,file.cache.direct=on{aio}"
NULL = "driver=null-co,node-name=disk,size=1073741824,read-zeroes=on"


@dataclass(frozen=True)
class Case:
    """One workload: what the client does, on what node, and the ratio asked for.

    ``required`` is requests per second as a multiple of the faster peer's.
    ``ceiling`` is the other way to pass: that share of what a server without a
    disk lets the same client reach.  ``cpu`` is the most server CPU per request
    that is allowed, as a multiple of the thriftier peer's.  ``requests`` ends a run
    after so many of them, before its time is over.
    """

    name: str
    rw: str
    block: str
    depth: int
    connections: int = 1
    node: str = FILE
    required: float | None = None
    ceiling: float | None = None
    cpu: float | None = None
    requests: int | None = None


CASES = (
    Case("read-4k-qd32", "randread", "4k", 32, required=2.0, ceiling=0.9, cpu=0.5),
    Case("read-4k-qd1", "randread", "4k", 1, required=1.8),
    Case("write-4k-qd32", "randwrite", "4k", 32, required=2.0, ceiling=0.9, cpu=0.5),
    Case("read-4k-2x-qd16", "randread", "4k", 16, connections=2, required=2.2),
    Case("read-1m-qd4", "read", "1m", 4, required=1.6),
    Case("write-1m-qd4", "write", "1m", 4, required=1.8),
    Case("null-1m-qd4", "read", "1m", 4, node=NULL, required=0.9),
    Case("direct-4k-qd32", "randread", "4k", 32, node=FILE + DIRECT, required=0.95),
    Case("direct-4k-qd1", "randread", "4k", 1, node=FILE + DIRECT, required=1.3),
)
BY_NAME = {case.name: case for case in CASES}
