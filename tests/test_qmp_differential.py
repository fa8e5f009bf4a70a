# SPDX-License-Identifier: Apache-2.0
"""Random lives of a block graph, in Blockyard's daemon and in QEMU's: the same answers.

Each seed is a list of commands that both daemons are given over QMP; every answer,
result and error text alike, is compared.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

NAMES = ("a", "b", "d", "e", "f")
#: What depends on the host, on time or on names made up.
VOLATILE = {
    "actual-size",
    "dirty-flag",
    "flush_operations",
    "flush_total_time_ns",
    "idle_time_ns",
    "min-mem-alignment",
    "opt-mem-alignment",
}
#: Members that only newer versions of QEMU have.
NEWER = {"limits", "children"}
QUERY = {"execute": "query-named-block-nodes", "arguments": {"flat": True}}


def peer():
    path = os.environ.get("BLOCKYARD_QSD") or shutil.which("qemu-storage-daemon")
    if path is None:
        pytest.skip("qemu-storage-daemon is not installed")
    if version_of(path) < 10:
        pytest.skip("before version 10 QEMU answers otherwise in many places")
    return path


def version_of(program):
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return int(re.search(r"version (\d+)", said.stdout)[1])


def ours():
    return str(Path(sysconfig.get_path("scripts")) / "blockyard-daemon")


def call(name, /, **arguments):
    return {"execute": name, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}


class Life:
    """A list of commands, drawn at random."""

    def __init__(self, seed, version):
        self.random = random.Random(seed)
        self.commands = [
            call("object-add", qom_type="iothread", id="i0"),
            call("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}}),
        ]
        steps = self.steps(version)
        weights, makers = zip(*steps, strict=True)
        chosen = self.random.choices(makers, weights, k=45)
        self.commands += [make() for make in chosen]
        self.commands += [QUERY, {"execute": "query-block-exports"}]

    def steps(self, version):
        return [
            (33, self.add),
            (12, self.delete),
            (13, self.reopen),
            (12, self.export),
            (8, self.unexport),
            # Until version 11 a resized node's parents kept their old length.
            (5 if version >= 11 else 0, self.resize),
            (6, self.activate),
            (4, self.move),
            (7, lambda: QUERY),
        ]

    def sometimes(self, chance, options, name, values):
        if self.random.random() < chance:
            options[name] = self.random.choice(values)

    def name(self):
        return self.random.choice(NAMES)

    def options(self, name=None, depth=0):
        drivers = ["file", "raw", "null-co"] if depth < 2 else ["file", "null-co"]
        options = {"driver": self.random.choice(drivers)}
        self.sometimes(0.7, options, "node-name", NAMES)
        if name:
            options["node-name"] = name
        for flag in ("read-only", "auto-read-only", "force-share", "active"):
            self.sometimes(0.12, options, flag, [True, False])
        self.sometimes(0.12, options, "detect-zeroes", ["off", "on", "unmap"])
        self.sometimes(0.12, options, "discard", ["ignore", "unmap"])
        caches = [{"direct": False}, {"no-flush": True}, {"direct": False, "no-flush": False}]
        self.sometimes(0.15, options, "cache", caches)
        return getattr(self, options["driver"].replace("-", "_"))(options, depth)

    def file(self, options, depth):
        options["filename"] = self.random.choice(["a.raw", "c.raw", "e.raw", "missing"])
        self.sometimes(0.3, options, "locking", ["on", "off", "auto"])
        return options

    def raw(self, options, depth):
        by_name = self.random.random() < 0.6
        options["file"] = self.name() if by_name else self.options(depth=depth + 1)
        self.sometimes(0.2, options, "offset", [0, 512, 1 << 19])
        self.sometimes(0.2, options, "size", [0, 512, 1 << 19])
        return options

    def null_co(self, options, depth):
        self.sometimes(0.5, options, "size", [0, 1024, 1 << 20])
        return options

    # -- the commands

    def add(self):
        return {"execute": "blockdev-add", "arguments": self.options(self.name())}

    def delete(self):
        return call("blockdev-del", node_name=self.name())

    def reopen(self):
        count = self.random.choice([1, 1, 1, 2])
        return call("blockdev-reopen", options=[self.options(self.name()) for _ in range(count)])

    def export(self):
        arguments = {
            "type": "nbd",
            "id": self.random.choice("xyz"),
            "node-name": self.name(),
            "name": self.random.choice("pqr"),
        }
        for flag in ("writable", "allow-inactive", "writethrough", "fixed-iothread"):
            self.sometimes(0.3, arguments, flag, [True, True, False])
        self.sometimes(0.2, arguments, "iothread", ["i0"])
        return {"execute": "block-export-add", "arguments": arguments}

    def unexport(self):
        return call("block-export-del", id=self.random.choice("xyz"))

    def resize(self):
        size = self.random.choice([0, 512, 1 << 20, (1 << 20) + 512, 2 << 20])
        return call("block_resize", node_name=self.name(), size=size) | {
            "arguments": {"node-name": self.name(), "size": size}
        }

    def activate(self):
        # A failed inactivation leaves QEMU's graph half asleep, and ours as it was.
        return call("blockdev-set-active", node_name=self.name(), active=True)

    def move(self):
        iothread = self.random.choice([None, "i0"])
        force = self.random.random() < 0.5
        return call(
            "x-blockdev-set-iothread", node_name=self.name(), iothread=iothread, force=force
        )


class BitmapLife(Life):
    """A life of dirty bitmaps, on nodes that come and go less often."""

    def __init__(self, seed, version):
        super().__init__(seed, version)
        nodes = [
            call("blockdev-add", driver="file", node_name="a", filename="a.raw", discard="unmap"),
            call("blockdev-add", driver="null-co", node_name="b", size=1 << 20),
            call("blockdev-add", driver="raw", node_name="d", file="b"),
            call("blockdev-add", driver="null-co", node_name="e", size=5000),
        ]
        self.commands[2:2] = nodes

    def steps(self, version):
        return [
            (3, self.add),
            (3, self.delete),
            (40, lambda: self.command(self.bitmap_action())),
            (16, self.transaction),
            (6, self.digest),
            (8, self.export),
            (4, self.unexport),
            (3, self.activate),
            (10, lambda: QUERY),
        ]

    def bitmap(self):
        return self.random.choice("uvw")

    def reference(self):
        if self.random.random() < 0.6:
            return self.bitmap()
        return {"node": self.name(), "name": self.bitmap()}

    def bitmap_action(self, kinds=("enable", "disable")):
        kind = self.random.choice(["add"] * 4 + ["merge"] * 3 + ["remove", "clear", *kinds] * 2)
        data = {"node": self.name()}
        if kind == "merge":
            data["target"] = self.bitmap()
            # QEMU crashes when there is none.
            data["bitmaps"] = [self.reference() for _ in range(self.random.randrange(1, 3))]
        else:
            data["name"] = self.bitmap()
        if kind == "add":
            sizes = [256, 512, 3000, 4096, 65536, 1 << 31]
            self.sometimes(0.4, data, "granularity", sizes)
            self.sometimes(0.1, data, "persistent", [True, False])
            self.sometimes(0.3, data, "disabled", [True, False])
        return {"type": f"block-dirty-bitmap-{kind}", "data": data}

    def command(self, action):
        return {"execute": action["type"], "arguments": action["data"]}

    def transaction(self):
        # QEMU crashes when an enable or disable among several fails.
        actions = [self.bitmap_action(()) for _ in range(self.random.randrange(4))]
        if self.random.random() < 0.2:
            actions.append({"type": "abort", "data": {}})
        arguments = {"actions": actions}
        modes = [{}, {"completion-mode": "individual"}, {"completion-mode": "grouped"}]
        self.sometimes(0.3, arguments, "properties", modes)
        return {"execute": "transaction", "arguments": arguments}

    def digest(self):
        return call("x-debug-block-dirty-bitmap-sha256", node=self.name(), name=self.bitmap())

    def export(self):
        command = super().export()
        if self.random.random() < 0.7:
            # Of the node's own: QEMU crashes when another node ends before the export.
            count = self.random.randrange(1, 3)
            command["arguments"]["bitmaps"] = [self.bitmap() for _ in range(count)]
        return command


def answers(program, commands, folder):
    folder.mkdir()
    for name, size in {"a.raw": 1 << 20, "c.raw": 2 << 20, "e.raw": 1 << 20}.items():
        with open(folder / name, "wb") as file:
            file.truncate(size)
    lines = [json.dumps(command) for command in [{"execute": "qmp_capabilities"}, *commands]]
    done = subprocess.run(
        [program, "--chardev", "stdio,id=m", "--monitor", "chardev=m"],
        input="\n".join([*lines, '{"execute": "quit"}\n']),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    replies = [line for line in said if "return" in line or "error" in line]
    assert len(replies) == len(commands) + 2, done.stderr
    return [reply.get("return", reply.get("error")) for reply in replies[1:-1]]


def normal(value):
    """The answer without what may differ."""
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [normal(item) for item in value]
    return re.sub(r"#block\d+", "#block", value) if isinstance(value, str) else value


def known_to(value, other):
    """The answer without members that an older QEMU does not have."""
    if isinstance(value, dict) and isinstance(other, dict):
        shared = {k: v for k, v in value.items() if k in other or k not in NEWER}
        return {key: known_to(item, other.get(key)) for key, item in shared.items()}
    if isinstance(value, list) and isinstance(other, list) and len(value) == len(other):
        return [known_to(a, b) for a, b in zip(value, other, strict=True)]
    return value


@pytest.mark.parametrize("seed", range(1000, 1000 + int(os.environ.get("BLOCKYARD_LIVES", "12"))))
@pytest.mark.parametrize("kind", [Life, BitmapLife])
def test_both_daemons_answer_alike(kind, seed, tmp_path):
    commands = kind(seed, version_of(peer())).commands
    theirs = answers(peer(), commands, tmp_path / "theirs")
    mine = answers(ours(), commands, tmp_path / "ours")

    for command, a, b in zip(commands, mine, theirs, strict=True):
        if "Cannot change the option 'driver'" in str(a) and "desc" in b:
            continue  # QEMU lets the old driver judge the new one's options first
        assert known_to(normal(a), normal(b)) == normal(b), json.dumps(command)
