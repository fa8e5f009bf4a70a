# SPDX-License-Identifier: Apache-2.0
"""The same commands to blockyard-daemon and to qemu-storage-daemon: the same answers."""

import json
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest


class Ours:
    """blockyard-daemon, asked as the conftest's Peer is."""

    def __init__(self):
        program = Path(sysconfig.get_path("scripts")) / "blockyard-daemon"
        self.process = subprocess.Popen(
            [program, "--chardev", "stdio,id=c", "--monitor", "chardev=c"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.process.stdout.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        self.process.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        while True:
            answer = json.loads(self.process.stdout.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                return "error:" + answer["error"]["desc"]

    def end(self):
        self.ask("quit")
        self.process.wait(60)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def ours():
    found = Ours()
    yield found
    found.end()


def created(daemon, path, **options):
    """What becomes of blockdev-create: its error, or None."""
    for name in (path, path.with_suffix(".data")):
        name.write_bytes(b"")
    for node, name in (("f", path), ("d", path.with_suffix(".data"))):
        named = {"driver": "file", "node-name": node, "filename": str(name)}
        assert daemon.ask("blockdev-add", **named) == {}
    options = {name.replace("_", "-"): value for name, value in options.items()}
    said = daemon.ask("blockdev-create", **{"job-id": "j"},
                      options={"driver": "qcow2", "file": "f", **options})  # fmt: skip
    while said == {}:
        (job,) = daemon.ask("query-jobs")
        if job["status"] == "concluded":
            said = job.get("error")
            daemon.ask("job-dismiss", id="j")
        time.sleep(0.01)
    for node in ("f", "d"):
        daemon.ask("blockdev-del", **{"node-name": node})
    return said


MIB = 1 << 20
V2 = {"size": MIB, "version": "v2"}
BACKED = {"size": MIB, "backing_file": "x.raw", "backing_fmt": "raw"}


@pytest.mark.parametrize(
    "options",
    [
        {"size": MIB},
        {"size": 0},
        {"size": 1000},
        {"size": 1 << 62},
        {"size": (1 << 63) - 512},
        {"size": 1 << 45, "cluster_size": 512},
        {"size": MIB, "cluster_size": 1000},
        {"size": MIB, "cluster_size": 4 * MIB},
        {"size": MIB, "refcount_bits": 3},
        V2,
        V2 | {"refcount_bits": 1},
        V2 | {"lazy_refcounts": True},
        V2 | {"extended_l2": True},
        V2 | {"compression_type": "zstd"},
        V2 | {"data_file": "d"},
        {"size": MIB, "extended_l2": True, "cluster_size": 8192},
        {"size": MIB, "backing_fmt": "raw"},
        {"size": MIB, "data_file_raw": True},
        {"size": MIB, "data_file": "d", "data_file_raw": True, "backing_file": "x"},
        BACKED,
        BACKED | {"preallocation": "full"},
        BACKED | {"preallocation": "metadata", "extended_l2": True},
        {"size": MIB, "preallocation": "falloc"},
        {"size": MIB + 512, "preallocation": "full", "cluster_size": 4096},
        {"size": MIB, "data_file": "d", "preallocation": "full"},
        {"size": MIB, "encrypt": {"format": "luks", "key-secret": "missing"}},
        {"size": MIB, "encrypt": {"format": "luks"}},
    ],
    ids=lambda o: ",".join(f"{name}={value}" for name, value in o.items()),
)
def test_images_are_made_or_refused_alike(options, ours, peer, tmp_path, qemu_img):
    (tmp_path / "x.raw").write_bytes(bytes(MIB))
    theirs, mine = tmp_path / "theirs.qcow2", tmp_path / "ours.qcow2"
    answers = created(peer, theirs, **options), created(ours, mine, **options)
    assert answers[0] == answers[1]
    if answers[0] is None:
        told = []
        for path in (theirs, mine):
            info = json.loads(qemu_img("info", "--output=json", path))
            data = info["format-specific"]["data"]
            data.pop("data-file", None)
            told.append((info["virtual-size"], info["cluster-size"], data))
            assert "No errors" in qemu_img("check", path)
            told.append(json.loads(qemu_img("map", "--output=json", path)) if "backing_file"
                        not in options else None)  # fmt: skip
        for entry in [*(told[1] or []), *(told[3] or [])]:
            entry.pop("offset", None)  # the layouts differ
        assert told[:2] == told[2:]


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
@pytest.mark.parametrize("cluster_size", [512, 4096, 65536])
def test_preallocated_images_are_as_long_as_qemus(
    cluster_size, mode, ours, peer, tmp_path, qemu_io
):
    lengths = []
    for daemon, name in ((peer, "theirs"), (ours, "ours")):
        path = tmp_path / name
        options = {"size": 2048000, "cluster_size": cluster_size, "preallocation": mode}
        assert created(daemon, path, **options) is None
        lengths.append(path.stat().st_size)
        before = path.stat().st_blocks
        qemu_io(path, "write -q 0 2048000")
        assert path.stat().st_size == lengths[-1]
        # Some blocks of the file more or less are its file system's affair.
        assert mode == "metadata" or path.stat().st_blocks < before * 1.1
    assert lengths[0] == lengths[1]


@pytest.mark.parametrize(
    "backing",
    [
        "missing",
        {"driver": "file", "filename": "/missing"},
        {"driver": "qcow2", "file": "missing"},
    ],
)
def test_backing_files_that_cannot_be_opened(backing, ours, peer, tmp_path, qemu_img):
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    named = {"driver": "qcow2", "node-name": "n", "backing": backing,
             "file": {"driver": "file", "filename": str(path)}}  # fmt: skip
    answers = [daemon.ask("blockdev-add", **named) for daemon in (peer, ours)]
    assert answers[0] == answers[1]
    assert answers[0].startswith("error:Could not open backing file: ")


def test_key_slots_of_a_read_only_node_stay_as_they_are(ours, tmp_path, qemu_img):
    path = tmp_path / "a.qcow2"
    luks = "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=1"
    words = ["--object", "secret,id=k,data=abc", "-o", luks]
    qemu_img("create", "-q", "-f", "qcow2", *words, path, "1M")
    before = path.read_bytes()
    ours.ask("object-add", **{"qom-type": "secret", "id": "k", "data": "abc"})
    named = {"driver": "qcow2", "node-name": "n", "read-only": True,
             "encrypt": {"format": "luks", "key-secret": "k"}}  # fmt: skip
    file = {"driver": "file", "node-name": "f", "filename": str(path)}
    assert ours.ask("blockdev-add", **file) == {}
    assert ours.ask("blockdev-add", file="f", **named) == {}
    slot = {"format": "luks", "state": "active", "new-secret": "k", "iter-time": 1}
    said = ours.ask("x-blockdev-amend", options={"driver": "qcow2", "encrypt": slot},
                    **{"job-id": "j", "node-name": "n"})  # fmt: skip
    for name in ("n", "f"):
        ours.ask("blockdev-del", **{"node-name": name})
    assert said == "error:Block node is read-only"
    assert path.read_bytes() == before
