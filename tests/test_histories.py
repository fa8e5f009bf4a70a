# SPDX-License-Identifier: Apache-2.0
"""Random lives: two monitors change everything while clients write; what was acknowledged stays.

A history is repeated with BLOCKYARD_HISTORY_SEED, and made longer with BLOCKYARD_HISTORY_STEPS.
Threads interleave as they like, so that a seed fixes the commands, not their timing.
"""

import json
import os
import random
import socket
import struct
import threading
import time

import pytest

SEED = int(os.environ.get("BLOCKYARD_HISTORY_SEED", "1"))
STEPS = int(os.environ.get("BLOCKYARD_HISTORY_STEPS", "60"))
SIZE, BLOCK, DEPTH = 8 << 20, 16384, 8
#: Seconds in which every command must be answered, whatever clients do.
BOUND = 15
NODES = ("disk", "file", "spare", "extra0", "extra1", "null0")
LOOPS = ("loop0", "loop1")


class Client:
    """The least NBD client: EXPORT_NAME, simple replies."""

    def __init__(self, path, name):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(BOUND)
        try:
            self.socket.connect(str(path))
            self.receive(18)
            option = struct.pack(">I8sII", 3, b"IHAVEOPT", 1, len(name)) + name.encode()
            self.socket.sendall(option)
            self.receive(10)
        except OSError:
            self.socket.close()
            raise

    def receive(self, count):
        """So many bytes; ConnectionError if the server ends before."""
        data = bytearray()
        while len(data) < count:
            chunk = self.socket.recv(count - len(data))
            if not chunk:
                raise ConnectionError
            data += chunk
        return bytes(data)

    def send_write(self, cookie, offset, data):
        """A request whose answer :meth:`answer` takes."""
        header = struct.pack(">IHHQQI", 0x25609513, 0, 1, cookie, offset, len(data))
        self.socket.sendall(header + data)

    def answer(self):
        """The next reply's error and cookie."""
        magic, error, cookie = struct.unpack(">IIQ", self.receive(16))
        assert magic == 0x67446698
        return error, cookie


class Load(threading.Thread):
    """Writes stamps over its part of the disk, through whichever export is there."""

    def __init__(self, path, part, seed):
        super().__init__(daemon=True)
        self.path, self.part, self.random = path, part, random.Random(seed)
        self.ending = threading.Event()
        #: By offset: the stamps that may be found there, the last acknowledged first.
        self.possible = {}
        #: Stamps by offset, of requests whose client was cut off.
        self.doubtful = {}
        self.acknowledged = 0
        self.failure = None

    def run(self):
        while not self.ending.is_set():
            try:
                self.write(Client(self.path, self.random.choice(("e0", "e1"))))
            except TimeoutError as error:
                self.failure = error
                return
            except OSError:
                time.sleep(0.01)

    def write(self, client):
        """Until the connection breaks, or the end."""
        pending = {}
        try:
            self.write_through(client, pending)
        finally:
            # The server may still carry these out, after what the next client writes.
            for offset, stamp in pending.values():
                self.doubtful.setdefault(offset, []).append(stamp)

    def write_through(self, client, pending):
        """As many at once as DEPTH; what has no answer yet is in ``pending``."""
        cookie = 0
        with client.socket:
            while not self.ending.is_set() or pending:
                if len(pending) < DEPTH and not self.ending.is_set():
                    cookie += 1
                    offset = self.send_one(client, cookie, pending)
                    if offset is not None:
                        pending[cookie] = offset
                        continue
                error, done = client.answer()
                self.settle(*pending.pop(done), error)

    def send_one(self, client, cookie, pending):
        """A write to a block that has none under way; what to settle it with."""
        low = self.part * (SIZE // 2)
        offset = low + self.random.randrange(SIZE // 2 // BLOCK) * BLOCK
        if any(offset == other for other, _ in pending.values()):
            return None
        stamp = self.random.randbytes(16)
        self.possible.setdefault(offset, [b"\0" * 16]).append(stamp)
        client.send_write(cookie, offset, stamp * (BLOCK // 16))
        return offset, stamp

    def settle(self, offset, stamp, error):
        """An acknowledged write ends all doubt about its block, a failed one does not."""
        if not error:
            self.possible[offset] = [stamp]
            self.acknowledged += 1


class History(threading.Thread):
    """Commands on one monitor; each must be answered, with success or an error."""

    def __init__(self, folder, monitor, seed, steps):
        super().__init__(daemon=True)
        self.folder, self.random, self.steps = folder, random.Random(seed), steps
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(BOUND)
        self.socket.connect(str(monitor))
        self.lines = self.socket.makefile("rw")
        self.lines.readline()
        self.execute("qmp_capabilities")
        self.done, self.succeeded, self.failure = [], set(), None

    def execute(self, command, **arguments):
        """The reply, after any events."""
        names = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.lines.write(json.dumps({"execute": command, "arguments": names}))
        self.lines.flush()
        while "event" in (reply := json.loads(self.lines.readline())):
            pass
        return reply

    def close(self):
        """The monitor waits for its next client then."""
        self.lines.close()
        self.socket.close()

    def run(self):
        try:
            for _ in range(self.steps):
                command, arguments = self.random.choice(MOVES)(self.random, self.folder)
                self.done.append((command, arguments))
                reply = self.execute(command, **arguments)
                if "return" in reply:
                    self.succeeded.add(command)
                else:
                    assert reply["error"]["class"] != "Unknown", reply
                time.sleep(self.random.random() * 0.02)
        except Exception as error:
            self.failure = error


def _start(rng, folder):
    address = {"type": "unix", "data": {"path": str(folder / "nbd")}}
    return "nbd-server-start", {"addr": address, "max_connections": rng.choice((0, 3))}


def _stop(rng, folder):
    # Rarely: the load needs the server.
    return ("nbd-server-stop", {}) if rng.random() < 0.4 else _start(rng, folder)


def _export(rng, folder):
    more = {}
    if rng.random() < 0.5:
        more["iothread"] = rng.choice((*LOOPS, list(LOOPS)))
        more["fixed_iothread"] = rng.random() < 0.3
    if rng.random() < 0.2:
        more["writethrough"] = True
    name = rng.choice(("e0", "e1"))
    return "block-export-add", {
        "type": "nbd", "id": name, "name": name, "writable": rng.random() < 0.9,
        "node_name": rng.choice(("disk", "disk", "extra0", "extra1")), **more,
    }  # fmt: skip


def _unexport(rng, folder):
    return "block-export-del", {
        "id": rng.choice(("e0", "e1")),
        "mode": rng.choice(("safe", "hard")),
    }


def _file(rng, folder):
    return {
        "driver": "file", "node-name": "file", "filename": str(folder / "disk.img"),
        "cache": {"direct": rng.random() < 0.3}, "read-only": rng.random() < 0.2,
        "aio": rng.choice(("threads", "io_uring")),
    }  # fmt: skip


def _layer(rng, name, under):
    return {
        "driver": "raw", "node-name": name, "file": under, "read-only": rng.random() < 0.2,
        "detect-zeroes": rng.choice(("off", "on")),
    }  # fmt: skip


def _reopen(rng, folder):
    one = rng.choice(
        (_file(rng, folder), _layer(rng, "disk", "file"), _layer(rng, "extra0", "disk"))
    )
    return "blockdev-reopen", {"options": [one]}


def _add(rng, folder):
    one = rng.choice((
        _file(rng, folder), _layer(rng, "disk", "file"), _layer(rng, "extra0", "disk"),
        _layer(rng, "extra1", "disk"), _layer(rng, "extra1", "extra0"),
        {"driver": "null-co", "node-name": "null0", "size": 1 << 20},
        {"driver": "file", "node-name": "spare", "filename": str(folder / "spare.img")},
    ))  # fmt: skip
    return "blockdev-add", one


def _delete(rng, folder):
    return "blockdev-del", {"node_name": rng.choice(NODES)}


def _resize(rng, folder):
    name = rng.choice(("spare", "null0", "disk"))
    # The disk only grows or stays: what was acknowledged must not be cut off.
    size = SIZE if name == "disk" else rng.randrange(8192) * 512
    return "block_resize", {"node_name": name, "size": size}


def _move(rng, folder):
    return "x-blockdev-set-iothread", {
        "node_name": rng.choice(NODES), "iothread": rng.choice((*LOOPS, None)),
        "force": rng.random() < 0.5,
    }  # fmt: skip


def _object(rng, folder):
    if rng.random() < 0.4:
        return "object-del", {"id": rng.choice(LOOPS)}
    return "object-add", {"qom_type": "iothread", "id": rng.choice(LOOPS)}


def _poll(rng, folder):
    value = rng.choice((0, 1000, 32768, -1))
    path = "/objects/" + rng.choice(LOOPS)
    return "qom-set", {"path": path, "property": "poll-max-ns", "value": value}


def _active(rng, folder):
    # Mostly on, for an inactive node stops the load.
    return "blockdev-set-active", {
        "active": rng.random() < 0.8,
        "node_name": rng.choice(NODES),
    }


def _threshold(rng, folder):
    return "block-set-write-threshold", {
        "node_name": rng.choice(NODES), "write_threshold": rng.choice((0, 1, SIZE // 2)),
    }  # fmt: skip


def _query(rng, folder):
    return rng.choice((
        "query-named-block-nodes", "query-block", "query-blockstats", "query-block-exports",
        "x-debug-query-block-graph", "query-jobs", "query-chardev",
    )), {}  # fmt: skip


def _create(rng, folder):
    if rng.random() < 0.5:
        return "job-dismiss", {"id": "job"}
    options = {"driver": "file", "filename": str(folder / "new.img"), "size": 1 << 20}
    return "blockdev-create", {"job_id": "job", "options": options}


def _chardev(rng, folder):
    if rng.random() < 0.5:
        return "chardev-remove", {"id": "ring"}
    return "chardev-add", {"id": "ring", "backend": {"type": "ringbuf", "data": {"size": 64}}}


MOVES = (
    _start, _stop, _export, _export, _export, _unexport, _reopen, _reopen, _add, _add, _delete,
    _resize, _move, _move, _object, _object, _poll, _active, _active, _threshold, _query,
    _create, _chardev,
)  # fmt: skip


def _begin(running):
    """A disk that two clients can write, before all that happens to it."""
    folder = running.folder
    (folder / "disk.img").write_bytes(b"\0" * SIZE)
    (folder / "spare.img").write_bytes(b"")
    for name in LOOPS:
        running.qmp("object-add", qom_type="iothread", id=name)
    running.qmp("blockdev-add", driver="file", node_name="file", filename=f"{folder}/disk.img")
    running.qmp("blockdev-add", driver="raw", node_name="disk", file="file")
    running.qmp("nbd-server-start", **_start(random.Random(0), folder)[1])
    running.qmp("block-export-add", type="nbd", id="e0", node_name="disk", name="e0", writable=True)
    loads = [Load(folder / "nbd", part, SEED + part) for part in range(2)]
    for load in loads:
        load.start()
    return loads


def _end(running):
    """Take everything down, in the order in which it can go."""
    for export in running.qmp("query-block-exports"):
        running.execute("block-export-del", id=export["id"], mode="hard")
    running.execute("nbd-server-stop")
    assert running.qmp("query-block-exports") == []
    left = {node["node-name"] for node in running.qmp("query-named-block-nodes")}
    for name in ("extra1", "extra0", "disk", "file", "spare", "null0"):
        if name in left:
            running.qmp("blockdev-del", node_name=name)
    assert running.qmp("query-named-block-nodes") == []


def _wrong(loads, data):
    """Offsets at which the image holds what no write could have left there."""
    return [
        (load.part, offset)
        for load in loads
        for offset, stamps in load.possible.items()
        if data[offset : offset + BLOCK]
        not in [stamp * (BLOCK // 16) for stamp in (*stamps, *load.doubtful.get(offset, ()))]
    ]


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_nothing_acknowledged_is_lost_whatever_two_monitors_do(daemon, seed, tmp_path):
    second = tmp_path / "second"
    running = daemon(
        "--chardev", f"socket,id=two,path={second},server=on,wait=off", "--monitor", "chardev=two",
    )  # fmt: skip
    loads = _begin(running)
    # The first monitor has a client; it moves to a history of its own.
    running._lines.close()
    running.socket.close()
    histories = [
        History(running.folder, monitor, f"{seed} {monitor.name}", STEPS)
        for monitor in (running.monitor, second)
    ]
    for history in histories:
        history.start()
    for history in histories:
        history.join()
        history.close()
        assert history.failure is None, (history.failure, history.done[-5:])
    for load in loads:
        load.ending.set()
    running._connect()
    _end(running)
    for load in loads:
        load.join(BOUND)
        assert load.failure is None

    assert "Traceback" not in running.stop()
    assert not _wrong(loads, (running.folder / "disk.img").read_bytes())
    assert all(load.acknowledged for load in loads)
