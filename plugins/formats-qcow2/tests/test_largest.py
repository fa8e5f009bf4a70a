# SPDX-License-Identifier: Apache-2.0
"""The largest disks there can be, in files of some kilobytes: no tool walks along them."""

import importlib.util
import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPTS = Path(sysconfig.get_path("scripts"))
PATIENCE = 20
ENTRIES = 1 << 22


def load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


damage = load("damage")


@pytest.fixture(params=["cluster_size=512", "cluster_size=64k", "cluster_size=2M,extended_l2=on"])
def largest(request, tmp_path, qemu_img, qemu_io):
    """A disk as large as its clusters allow; 64 KiB are data, and it has an L1 table of 32 MiB."""
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", request.param, path, "64k")
    qemu_io(path, "write -P 3 0 64k")
    found = damage.Image(path)
    entry = 16 if "extended" in request.param else 8
    entries = found.read(found.l1, 8 * found.get32(36))
    found.put(40, 1 << 30)
    found.put32(36, ENTRIES)
    found.write(found.l1, entries)
    found.put(24, ENTRIES * (found.cluster // entry) * found.cluster)
    os.truncate(path, (1 << 30) + 8 * ENTRIES)
    return found


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)


def test_a_map_says_where_the_data_are(largest):
    done = run(SCRIPTS / "blockyard-img", "map", "--output=json", largest.path)
    assert done.returncode == 0
    extents = json.loads(done.stdout)
    assert sum(each["length"] for each in extents if each["data"]) == 65536
    assert len(extents) < 6
    assert not extents[-1]["data"]
    assert extents[-1]["start"] + extents[-1]["length"] == largest.get(24)
    done = run(SCRIPTS / "blockyard-io", "-r", "-c", "map", largest.path)
    assert len(done.stdout.splitlines()) == 2


def test_data_at_the_end_are_found(largest, qemu_io):
    end = largest.get(24)
    done = run(SCRIPTS / "blockyard-io", "-c", f"write -P 5 {end - 4096} 4k", largest.path)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(SCRIPTS / "blockyard-img", "map", "--output=json", largest.path)
    assert '"data": true' in done.stdout.splitlines()[-1]
    assert run(SCRIPTS / "blockyard-img", "compare", largest.path, largest.path).returncode == 0
    assert "failed" not in qemu_io(largest.path, f"read -P 5 {end - 4096} 4k", options=["-r"])
