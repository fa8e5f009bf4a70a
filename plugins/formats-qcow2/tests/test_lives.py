# SPDX-License-Identifier: Apache-2.0
"""Random lives of an image over QMP, in Blockyard's daemon and in QEMU's, command by command.

Each seed is a list of commands about bitmaps, snapshots, sizes, key slots and options
that both daemons are given, each for its own copy of an image.  Every answer is
compared, result and error text alike, and the images at the end.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest

MIB = 1 << 20
SIZE = 4 * MIB
NAMES = ("u", "v", "w")
KEY = ["--object", "secret,id=s,data=abc"]
#: What depends on time, on the layout of tables or on the version of QEMU.
VOLATILE = {
    "actual-size", "children", "date-nsec", "date-sec", "dirty-flag", "iters", "limits",
    "master-key-iters", "min-mem-alignment", "opt-mem-alignment", "stripes", "uuid",
    "vm-clock-nsec", "vm-clock-sec",
}  # fmt: skip
SHAPES = {
    "plain": [],
    "old": ["-o", "compat=0.10"],
    "subclusters": ["-o", "extended_l2=on,cluster_size=16k"],
    "backed": ["-b", "base.raw", "-F", "raw"],
    "data": ["-o", "data_file=data"],
    "raw data": ["-o", "data_file=data,data_file_raw=on"],
    "luks": [*KEY, "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1"],
}


class Daemon:
    """A daemon in a folder with the image, its monitor on a pipe."""

    def __init__(self, program, folder):
        self.process = subprocess.Popen(
            [program, "--chardev", "stdio,id=c", "--monitor", "chardev=c"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            cwd=folder,
        )  # fmt: skip
        self.folder = folder
        self.process.stdout.readline()
        self.ask("qmp_capabilities", {})

    def ask(self, command, arguments):
        """The answer; of a job its end."""
        if command == "write":
            return self.write(arguments)
        said = self.send(command, arguments)
        if command != "x-blockdev-amend" or "desc" in said:
            return said
        while True:
            (job,) = self.send("query-jobs", {})
            if job["status"] == "concluded":
                self.send("job-dismiss", {"id": job["id"]})
                return {"job": job.get("error")}
            time.sleep(0.01)

    def send(self, command, arguments):
        self.process.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        while True:
            line = self.process.stdout.readline()
            assert line, (command, arguments, self.process.wait())
            answer = json.loads(line)
            if "event" not in answer:
                return answer.get("return", answer.get("error"))

    def write(self, commands):
        """What qemu-io says of commands to an export of the image."""
        export = {"type": "nbd", "id": "x", "node-name": "d", "writable": True, "name": "x"}
        if said := self.send("block-export-add", export):
            return said
        words = [word for each in commands for word in ("-c", each)]
        uri = f"nbd+unix:///x?socket={self.folder}/nbd"
        done = subprocess.run(
            ["qemu-io", "-f", "raw", "-d", "unmap", *words, uri],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        self.send("block-export-del", {"id": "x", "mode": "hard"})
        while self.send("query-block-exports", {}):
            time.sleep(0.01)
        return [line for line in done.stdout.splitlines() if "ops" not in line]

    def end(self):
        self.send("quit", {})
        self.process.wait(60)
        self.process.stdin.close()
        self.process.stdout.close()


class Life:
    """Commands, drawn at random."""

    def __init__(self, seed, shape):
        self.random = random.Random(f"{shape} {seed}")
        self.shape = shape
        self.encrypt = {"format": "luks", "key-secret": "s"} if shape == "luks" else None
        nodes = [("f", "a.qcow2"), *([("data", "data")] if "data" in shape else [])]
        self.commands = [
            *(("object-add", {"qom-type": "secret", "id": i, "data": v})
              for i, v in (("s", "abc"), ("t", "second"), ("wrong", "no"))),
            ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "nbd"}}}),
            *(("blockdev-add", {"driver": "file", "node-name": name, "filename": file})
              for name, file in nodes),
            ("blockdev-add", self.options()),
        ]  # fmt: skip
        steps = [
            (12, self.bitmap), (4, self.transaction), (3, self.digest), (5, self.resize),
            (4, self.snapshot), (3, self.unsnapshot), (4, self.write), (3, self.reopen),
            (3, self.close), (4, self.add), (2, self.query), (9 if self.encrypt else 1, self.amend),
        ]  # fmt: skip
        weights, makers = zip(*steps, strict=True)
        self.commands += [make() for make in self.random.choices(makers, weights, k=40)]
        self.commands += [("blockdev-del", {"node-name": "d"}), ("blockdev-add", self.options())]
        self.commands += [("query-named-block-nodes", {"flat": True})]
        self.commands += [
            ("x-debug-block-dirty-bitmap-sha256", {"node": "d", "name": name}) for name in NAMES
        ]

    def options(self, **more):
        found = {"driver": "qcow2", "node-name": "d", "file": "f", "discard": "unmap", **more}
        if "data" in self.shape:
            found.setdefault("data-file", "data")
        if self.encrypt:
            found.setdefault("encrypt", self.encrypt)
        return found

    def sometimes(self, chance, options, name, values):
        if self.random.random() < chance:
            options[name] = self.random.choice(values)

    def action(self, kinds=("enable", "disable")):
        kind = self.random.choice(["add"] * 4 + ["merge"] * 2 + ["remove", "clear", *kinds])
        data = {"node": "d"}
        if kind == "merge":
            data["target"] = self.random.choice(NAMES)
            data["bitmaps"] = [self.random.choice(NAMES)]
        else:
            data["name"] = self.random.choice(NAMES)
        if kind == "add":
            sizes = [256, 512, 3000, 4096, 65536, 1 << 31]
            self.sometimes(0.4, data, "granularity", sizes)
            self.sometimes(0.8, data, "persistent", [True, True, True, False])
            self.sometimes(0.2, data, "disabled", [True, False])
            self.sometimes(0.05, data, "name", ["n" * 1023, "n" * 1024])
        return f"block-dirty-bitmap-{kind}", data

    def bitmap(self):
        return self.action()

    def transaction(self):
        # QEMU crashes when an enable or disable among several fails.
        actions = [self.action(()) for _ in range(self.random.randrange(1, 4))]
        return "transaction", {"actions": [{"type": kind, "data": data} for kind, data in actions]}

    def digest(self):
        return "x-debug-block-dirty-bitmap-sha256", {
            "node": "d",
            "name": self.random.choice(NAMES),
        }

    def resize(self):
        if self.shape == "raw data":
            return self.query()  # QEMU crashes when such an image grows
        sizes = [SIZE, SIZE + 512, SIZE + 511, 2 * MIB, 5 * MIB, 0, -1, 1 << 62]
        return "block_resize", {"node-name": "d", "size": self.random.choice(sizes)}

    def snapshot(self):
        arguments = {"device": "d", "name": self.random.choice(["", "s1", "s2", "1"])}
        return "blockdev-snapshot-internal-sync", arguments

    def unsnapshot(self):
        arguments = {"device": "d"}
        self.sometimes(0.7, arguments, "name", ["", "s1", "s2", "1"])
        self.sometimes(0.4, arguments, "id", ["1", "2", "s1", ""])
        return "blockdev-snapshot-delete-internal-sync", arguments

    def write(self):
        commands = []
        for _ in range(self.random.randrange(1, 4)):
            at, length = self.random.randrange(30) * 65536, self.random.choice([512, 70000 * 512])
            length = min(length, 2 * MIB - at)
            kind = self.random.choice([f"write -P {self.random.randrange(256)}", "write -z"])
            commands.append(f"{kind} {at} {length}")
        return "write", commands

    def reopen(self):
        more = {}
        if not self.encrypt:
            self.sometimes(0.5, more, "read-only", [True, False])
        self.sometimes(0.3, more, "lazy-refcounts", [True, False])
        self.sometimes(0.2, more, "overlap-check", ["all", "none"])
        self.sometimes(0.1, more, "cache-size", [1, 1 << 20])
        self.sometimes(0.1, more, "file", ["missing", "data"])
        self.sometimes(0.1, more, "encrypt", [{"format": "luks", "key-secret": "s"},
                                              {"format": "aes", "key-secret": "s"}])  # fmt: skip
        return "blockdev-reopen", {"options": [self.options(**more)]}

    def close(self):
        return "blockdev-del", {"node-name": "d"}

    def add(self):
        more = {}
        if not self.encrypt:
            # QEMU crashes when key slots of such a node change.
            self.sometimes(0.2, more, "read-only", [True, False])
        self.sometimes(0.1, more, "encrypt", [{"format": "luks", "key-secret": "wrong"}])
        self.sometimes(0.1, more, "data-file", ["f", "missing"])
        return "blockdev-add", self.options(**more)

    def query(self):
        return "query-named-block-nodes", {"flat": True}

    def amend(self):
        encrypt = {"format": "luks", "state": self.random.choice(["active", "inactive"])}
        self.sometimes(0.8, encrypt, "new-secret", ["t", "s", "wrong", "missing"])
        self.sometimes(0.5, encrypt, "old-secret", ["t", "s", "wrong"])
        self.sometimes(0.5, encrypt, "keyslot", [0, 1, 2, 7, 8, -1])
        self.sometimes(0.2, encrypt, "secret", ["s", "t", "wrong"])
        encrypt["iter-time"] = 1
        if encrypt["state"] == "inactive":
            if self.random.random() < 0.9:
                encrypt.pop("new-secret", None)
                encrypt.pop("iter-time")
        elif self.random.random() < 0.9:
            encrypt.pop("old-secret", None)
        options = {"driver": "qcow2"}
        self.sometimes(0.9, options, "encrypt", [encrypt, encrypt, {"format": "qcow"}])
        arguments = {"job-id": "j", "node-name": "d", "options": options}
        self.sometimes(0.15, arguments, "force", [True, False])
        return "x-blockdev-amend", arguments


def normal(value):
    """The answer without what may differ."""
    if isinstance(value, dict):
        if value.get("format") == "file":
            value = {key: item for key, item in value.items() if key != "virtual-size"}
        return {key: normal(item) for key, item in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [normal(item) for item in value]
    if isinstance(value, str) and value.startswith("json:"):
        return json.loads(value.removeprefix("json:"))
    return re.sub(r"#block\d+", "#block", value) if isinstance(value, str) else value


def told(qemu_img, shape, folder):
    """What QEMU tells of the image that is left."""
    words = "driver=qcow2,file.filename=a.qcow2"
    options = [*KEY, "--image-opts", words + ",encrypt.format=luks,encrypt.key-secret=s"]
    options = options if shape == "luks" else ["--image-opts", words]
    report = json.loads(qemu_img("check", "--output=json", *options, cwd=folder, ok=False).stdout)
    assert not report.get("corruptions"), report
    assert not report.get("leaks"), report
    info = normal(json.loads(qemu_img("info", "--output=json", *options, cwd=folder)))
    for slot in info["format-specific"]["data"].get("encrypt", {}).get("slots", []):
        slot.pop("key-offset", None)
    info.pop("snapshots", None)
    return info


@pytest.mark.parametrize("seed", range(int(os.environ.get("BLOCKYARD_LIVES", "2"))))
@pytest.mark.parametrize("shape", SHAPES)
def test_both_daemons_do_alike(shape, seed, tmp_path, qemu_img):
    qsd = os.environ.get("BLOCKYARD_QSD") or shutil.which("qemu-storage-daemon")
    if qsd is None:
        pytest.skip("qemu-storage-daemon is not installed")
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    (mine / "base.raw").write_bytes(b"\x42" * (3 * MIB))
    qemu_img("create", "-q", "-f", "qcow2", *SHAPES[shape], "a.qcow2", SIZE, cwd=mine)
    shutil.copytree(mine, theirs)
    ours = Path(sysconfig.get_path("scripts")) / "blockyard-daemon"
    both = [Daemon(ours, mine), Daemon(qsd, theirs)]
    try:
        for command in Life(seed, shape).commands:
            a, b = (normal(daemon.ask(*command)) for daemon in both)
            assert a == b, json.dumps(command)
    finally:
        for daemon in both:
            daemon.end()
    assert told(qemu_img, shape, mine) == told(qemu_img, shape, theirs)
    options = KEY if shape == "luks" else []
    name = "driver=qcow2,file.filename={}/a.qcow2"
    name += ",encrypt.format=luks,encrypt.key-secret=s" if shape == "luks" else ""
    if "data" in shape:
        name += ",data-file.driver=file,data-file.filename={}/data"
    pair = [name.replace("{}", str(each)) for each in (mine, theirs)]
    qemu_img("compare", *options, "--image-opts", *pair)
