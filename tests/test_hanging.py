# SPDX-License-Identifier: Apache-2.0
"""Nodes that never answer: the daemon ends all the same, and others are served meanwhile."""

import subprocess
import sys
import time

import pytest

#: Longer than anybody waits.
FOREVER = (1 << 63) - 1


def shortly(seconds):
    """The daemon's program, with less patience."""
    code = (
        "import sys; from blockyard.daemon import deadline, main; "
        f"deadline.CLOSE_SECONDS = {seconds}; sys.exit(main.main())"
    )
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("how", ["quit", "signal"])
def test_a_node_that_hangs_does_not_keep_the_daemon(daemon, client, image, how):
    pid = image.with_name("pid")
    running = daemon("--pidfile", pid, program=shortly(2))
    uri = running.serve(image)
    running.qmp("blockdev-add", driver="null-co", node_name="stuck", latency_ns=FOREVER)
    running.qmp("blockdev-add", driver="raw", node_name="above", file="stuck")
    running.qmp("block-export-add", type="nbd", id="stuck", node_name="above", writable=True)
    stuck = subprocess.Popen(
        ["qemu-io", "-f", "raw", "-c", "read 0 512", running.uri("stuck")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(0.5)
    client("qemu-io", "-f", "raw", "-c", "write -P 0x5a 0 4k", uri)
    began = time.monotonic()
    if how == "quit":
        running.qmp("quit")
        running.process.wait(15)
    running.status = 1
    running.stop()
    stuck.kill()
    stuck.wait()

    assert 1.5 < time.monotonic() - began < 10
    assert "node 'stuck' hangs; ending without it after 2 s" in running.log.read_text()
    assert not pid.exists()
    assert image.read_bytes()[:4096] == b"\x5a" * 4096
