# SPDX-License-Identifier: Apache-2.0
"""An L1 table of 32 MiB all of whose entries lead to one L2 table: 2**35 references in all."""

import importlib.util
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPTS = Path(sysconfig.get_path("scripts"))
PATIENCE = 60
ENTRIES = 1 << 22
CLUSTER = 65536
COPIED = 1 << 63


def load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


damage = load("damage")


@pytest.fixture
def overlapping(tmp_path, qemu_img):
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "1G")
    found = damage.Image(path)
    end = -(-path.stat().st_size // CLUSTER) * CLUSTER
    l1 = end + CLUSTER
    data = l1 + 8 * ENTRIES
    found.put(24, ENTRIES * (CLUSTER // 8) * CLUSTER)
    found.put32(36, ENTRIES)
    found.put(40, l1)
    found.write(end, (COPIED | data).to_bytes(8, "big") * (CLUSTER // 8))
    found.write(l1, (COPIED | end).to_bytes(8, "big") * ENTRIES)
    os.truncate(path, data + CLUSTER)
    return path


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)


def test_a_check_ends_and_tells_a_bounded_part(overlapping):
    done = run(SCRIPTS / "blockyard-img", "check", overlapping)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[-1] == "What else is wrong is counted, but not told."
    assert len(lines) == (1 << 17) + 1
    assert "errors were found on the image." in done.stdout


def test_no_snapshot_is_taken(overlapping):
    done = run(SCRIPTS / "blockyard-img", "snapshot", "-c", "s", overlapping)
    assert done.returncode == 1
    assert "used more than once; further corruption events will be suppressed" in done.stderr
    assert done.stderr.endswith("Could not create snapshot 's': Input/output error\n")
