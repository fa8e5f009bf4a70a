# SPDX-License-Identifier: Apache-2.0
"""The tutorial's distribution, installed as a reader would and checked by the kit."""

import os
import subprocess
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The tutorial built from its source and installed in a folder on PYTHONPATH."""
    import sys

    folder = tmp_path_factory.mktemp("tutorial")
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
             "--disable-pip-version-check", "--target", str(folder), str(TUTORIAL)]  # fmt: skip
    subprocess.run(words, check=True, timeout=300)
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_it_passes_the_whole_contract(environment, python):
    words = [python, "-m", "pytest", "-c", "/dev/null", "--import-mode=importlib", "-q",
             "-p", "no:cacheprovider", str(TUTORIAL / "tests")]  # fmt: skip
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout


def test_it_is_listed(environment, python):
    words = [python, "-m", "blockyard.cli.main", "plugins", "--kind", "drivers"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    row = next(line.split() for line in done.stdout.splitlines() if " ram " in line)
    assert row == ["drivers", "ram", "blockyard-drivers-ram", "0.1.0", "ok"]


def test_the_daemon_serves_it_to_a_real_client(environment, daemon, client):
    server = daemon("--blockdev", "driver=ram,node-name=disk,size=1048576", env=environment)
    server.qmp("nbd-server-start", addr={"type": "unix", "data": {"path": str(server.nbd)}})
    server.qmp("block-export-add", type="nbd", id="e", node_name="disk", writable=True)
    uri = server.uri("disk")
    out = client("qemu-io", "-f", "raw", "-c", "write -P 4 1000 50000",
                 "-c", "read -P 4 1000 50000", "-c", "read -P 0 60000 1000", uri)  # fmt: skip
    assert "failed" not in out


def test_its_options_are_checked_like_any_others(environment, daemon):
    server = daemon(env=environment)
    text = server.refused("blockdev-add", driver="ram", node_name="n")
    assert text == "Parameter 'size' is missing"
    text = server.refused("blockdev-add", driver="ram", node_name="n", size=1, colour="red")
    assert text == "Parameter 'colour' is unexpected"


def test_many_requests_a_second(environment, daemon, client):
    """No number is asserted; the benchmark prints it."""
    server = daemon("--blockdev", "driver=ram,node-name=disk,size=16777216", env=environment)
    server.qmp("nbd-server-start", addr={"type": "unix", "data": {"path": str(server.nbd)}})
    server.qmp("block-export-add", type="nbd", id="e", node_name="disk", writable=True)
    client("fio", "--name=x", "--ioengine=nbd", f"--uri={server.uri('disk')}", "--rw=randrw",
           "--bs=4k", "--iodepth=32", "--size=16m", "--io_size=32m")  # fmt: skip
