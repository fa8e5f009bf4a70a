# SPDX-License-Identifier: Apache-2.0
"""Names in images: whatever they open, nobody is kept waiting, and no loop goes unseen."""

import importlib.util
import json
import os
import subprocess
import sysconfig
from pathlib import Path

import anyio
import pytest

from blockyard.changes import backing
from blockyard.errors import BlockyardError

HERE = Path(__file__).parent
PATIENCE = 20


def load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


damage = load("damage")


@pytest.fixture
def image(tmp_path, qemu_img):
    """``image(file, name)``: an image in ``file`` whose backing file has that name."""

    def make(file, name, fmt=None):
        path = tmp_path / file
        qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "1M")
        found = damage.Image(path)
        found.write(1024, os.fsencode(name))
        found.put(8, 1024)
        found.put32(16, len(os.fsencode(name)))
        if fmt:
            found.write(112, b"\xe2\x79\x2a\xca" + bytes([0, 0, 0, len(fmt)]) + fmt.ljust(8, b"\0"))
            found.write(128, bytes(8))
        return path

    return make


NOBODY = {"driver": "nbd", "server": {"type": "unix", "path": "/nobody"}, "export": ""}


@pytest.mark.parametrize(
    "named",
    [
        {"driver": "raw", "file": {**NOBODY, "open-timeout": 100000}},
        {"driver": "raw", "file": {**NOBODY, "open-timeout": "0x10000"}},
        {"driver": "raw", "file": {**NOBODY, "open-timeout": "100k"}},
        {"file": {**NOBODY, "open-timeout": 100000}},
        {
            "driver": "raw",
            "file.driver": "nbd",
            "file.path": "/nobody",
            "file.open-timeout": 100000,
        },
        {
            "driver": "quorum",
            "vote-threshold": 1,
            "children": [{**NOBODY, "open-timeout": 100000}],
        },
    ],
    ids=lambda named: json.dumps(named)[:60],
)
def test_nobody_waits_for_a_server_that_an_image_names(named, image, place, monkeypatch):
    monkeypatch.setattr(backing, "_PATIENCE", {**backing._PATIENCE, "open-timeout": 1})
    path = image("a.qcow2", "json:" + json.dumps(named))

    async def opened():
        with anyio.fail_after(PATIENCE):
            await place.yard.open(
                {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}
            )

    with pytest.raises(BlockyardError, match="No such file or directory"):
        place.ask(opened)


def test_nobody_waits_for_a_disk_that_takes_ages(image, place):
    disk = {"driver": "null-co", "latency-ns": (1 << 63) - 1}
    path = image("a.qcow2", "json:" + json.dumps({"driver": "qcow2", "file": disk}))

    async def opened():
        with anyio.fail_after(PATIENCE):
            await place.yard.open(
                {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}
            )

    with pytest.raises(BlockyardError, match="not in qcow2 format"):
        place.ask(opened)


@pytest.mark.parametrize("name", ["a.qcow2", "./a.qcow2", "link/a.qcow2", "hard", "soft"])
@pytest.mark.parametrize("fmt", [None, b"qcow2"])
def test_an_image_on_itself_has_no_chain_without_end(name, fmt, image, tmp_path):
    path = image("a.qcow2", name, fmt)
    (tmp_path / "link").symlink_to(".")
    (tmp_path / "soft").symlink_to("a.qcow2")
    (tmp_path / "hard").hardlink_to(path)
    program = Path(sysconfig.get_path("scripts")) / "blockyard-img"
    for words in (["info", "-U", "--backing-chain"], ["map", "-U"], ["convert", "-U", "-O", "raw"]):
        target = [str(tmp_path / "out")] if words[0] == "convert" else []
        done = subprocess.run(
            [program, *words, path, *target], capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 1
        if words[0] == "info":
            assert "creates an infinite loop" in done.stderr
