# SPDX-License-Identifier: Apache-2.0
"""Native events reach their handlers whatever other handlers do."""

import os
import signal
import subprocess
import sys
import threading

import anyio
import pytest

from blockyard.yard import Yard

#: A yard in which a handler fails; it must go on, and end.
FAILING = """
import anyio
from blockyard.yard import Yard

def fail(event):
    raise ValueError("a handler's fault")

async def main():
    async with Yard() as yard:
        yard.control.lib.by_synchronise(yard.control.tag(fail))
        for _ in range(3):
            await yard.graph.carrier.synchronise()
        assert yard.loops.main
        print("went on", flush=True)

anyio.run(main, backend="%s")
"""

#: A daemon whose handler fails; SIGTERM must end it.
DAEMON = """
import sys
from blockyard.daemon import lifecycle, main

live = lifecycle._live

async def failing(yard, *rest):
    def fail(event):
        print("failing", flush=True)
        raise ValueError("a handler's fault")

    yard.control.lib.by_synchronise(yard.control.tag(fail))
    yard.loops.main
    await live(yard, *rest)

lifecycle._live = failing
sys.exit(main.main([]))
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_handler_that_fails_costs_nobody_else_an_event(backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILING % backend],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert "a handler's fault" in done.stderr


def test_a_daemon_ends_on_a_signal_after_a_handler_failed() -> None:
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert daemon.stdout is not None
    assert daemon.stdout.readline() == "failing\n"
    daemon.send_signal(signal.SIGTERM)
    try:
        _, errors = daemon.communicate(timeout=15)
    finally:
        daemon.kill()

    assert daemon.returncode == 0, errors


def test_controls_that_come_and_go_get_their_events_and_nobody_elses() -> None:
    """One control's thread may take what another's is waiting for, up to its end."""

    async def come_and_go() -> None:
        for _ in range(30):
            async with Yard() as yard:
                assert yard.loops.main
                for _ in range(5):
                    await yard.graph.carrier.synchronise()

    before = set(os.listdir("/proc/self/fd"))
    threads = [threading.Thread(target=anyio.run, args=(come_and_go,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not any(thread.is_alive() for thread in threads)
    assert set(os.listdir("/proc/self/fd")) == before
