# SPDX-License-Identifier: Apache-2.0
"""Hostile and slow NBD clients against the programs as users start them.

Whatever they do, a well-behaved client is served all the time, its data is right, nothing
of theirs stays open, and the program ends when it is told to.
"""

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import sysconfig
import threading
import time
from pathlib import Path

import pytest

SCRIPTS = Path(sysconfig.get_path("scripts"))
LIMIT = 120
SIZE = 64 << 20
MAX_PAYLOAD = 32 << 20
READ, WRITE, DISC, BLOCK_STATUS = 0, 1, 2, 7
PAYLOAD_LEN = 1 << 5
#: Options of the handshake.
LIST, INFO, GO, STRUCTURED, LIST_META, SET_META, EXTENDED = 3, 6, 7, 8, 9, 10, 11
MODES = {"simple": None, "structured": STRUCTURED, "extended": EXTENDED}
CONTEXTS = (b"base:allocation", b"qemu:allocation-depth")


def texts(*strings):
    return b"".join(struct.pack(">I", len(each)) + each for each in strings)


def option(number, data=b"", length=None):
    length = len(data) if length is None else length
    return b"IHAVEOPT" + struct.pack(">II", number, length) + data


class Client:
    """A connection that says what it likes."""

    def __init__(self, path, timeout=LIMIT):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.mode = "simple"
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def take(self, count):
        parts = b""
        while len(parts) < count:
            part = self.socket.recv(count - len(parts))
            if not part:
                raise EOFError
            parts += part
        return parts

    def say(self, *parts):
        """Send, and stop where the server does not want more."""
        with contextlib.suppress(OSError):
            for part in parts:
                self.socket.sendall(part)

    def hear(self, seconds):
        """Whatever comes, until it ends or nothing more comes."""
        self.socket.settimeout(seconds)
        with contextlib.suppress(OSError):
            while self.socket.recv(1 << 20):
                pass

    def ask(self, number, data=b""):
        self.socket.sendall(option(number, data))
        while True:
            kind, length = struct.unpack(">12xII", self.take(20))
            self.take(length)
            assert kind < 1 << 31, f"option {number}: {kind:#x}"
            if kind == 1:
                return

    def go(self, mode="simple"):
        self.take(18)
        self.socket.sendall(struct.pack(">I", 3))
        if MODES[mode] is not None:
            self.ask(MODES[mode])
            self.ask(SET_META, texts(b"") + struct.pack(">I", 2) + texts(*CONTEXTS))
        self.ask(GO, texts(b"") + b"\0\0")
        self.mode = mode
        return self

    def request(self, kind, offset, length, flags=0, data=b"", cookie=1):
        form, magic = (">IHHQQQ", 0x21E41C71) if self.mode == "extended" else (
            ">IHHQQI", 0x25609513,
        )  # fmt: skip
        return struct.pack(form, magic, flags, kind, cookie, offset, length) + data


class Victim(threading.Thread):
    """The client that must not notice anything: it writes, reads back and compares."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.rounds = 0
        self.problem = None
        self.enough = threading.Event()

    def run(self):
        try:
            with Client(self.path) as client:
                client.go()
                while not self.enough.wait(0.01):
                    self._round(client)
                client.socket.sendall(client.request(DISC, 0, 0))
        except Exception as error:
            self.problem = error

    def _round(self, client):
        data, offset = random.randbytes(4096), random.randrange(64) * 4096
        client.socket.sendall(client.request(WRITE, offset, 4096, 0, data))
        assert struct.unpack(">4xI8x", client.take(16)) == (0,)
        client.socket.sendall(client.request(READ, offset, 4096))
        assert struct.unpack(">4xI8x", client.take(16)) == (0,)
        assert client.take(4096) == data
        self.rounds += 1

    def still_served(self):
        """Wait until it has been served once more from the beginning."""
        before, end = self.rounds, time.monotonic() + LIMIT
        while self.rounds < before + 2 and self.problem is None and time.monotonic() < end:
            time.sleep(0.01)
        assert self.problem is None
        assert self.rounds >= before + 2

    def stop(self):
        self.enough.set()
        self.join(LIMIT)
        assert self.problem is None


def wait_for(process, path):
    """Until it accepts connections."""
    end = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < end:
        try:
            Client(path).socket.close()
            return
        except OSError:
            time.sleep(0.01)
    raise AssertionError(f"{path} is not served")


@pytest.fixture(params=["blockyard-nbd", "blockyard-daemon"])
def server(request, tmp_path, client):
    """A process that serves a qcow2 image on ``path``; it ends well, and the image is good."""
    image, path = tmp_path / "disk.qcow2", tmp_path / "socket"
    client("qemu-img", "create", "-q", "-f", "qcow2", image, str(SIZE))
    words = {
        "blockyard-nbd": ["-t", "-e", "60", "-A", "-k", path, "-f", "qcow2", image],
        "blockyard-daemon": [
            "--blockdev", f"qcow2,node-name=d,file.driver=file,file.filename={image}",
            "--nbd-server", f"addr.type=unix,addr.path={path}",
            "--export", "nbd,id=e,node-name=d,name=,writable=on,allocation-depth=on",
        ],
    }[request.param]  # fmt: skip
    process = subprocess.Popen([SCRIPTS / request.param, *map(str, words)])
    process.path = path
    try:
        wait_for(process, path)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0
    finally:
        process.kill()
        process.wait()
    client("qemu-img", "check", "-q", image)


@pytest.fixture
def victim(server):
    found = Victim(server.path)
    found.start()
    try:
        found.still_served()
        yield found
        found.still_served()
    finally:
        found.stop()


def descriptors(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def settled(process, count):
    """Wait until what hostile clients cost in descriptors is given back."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        # Those that are still in the queue come and go one by one.
        if max(descriptors(process) for _ in range(20)) <= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{descriptors(process)} descriptors, and there were {count}")


def hostile_options():
    """What a handshake may bring: lengths and counts that are not so."""
    none, many = texts(b""), struct.pack(">I", 0xFFFFFFFF)
    for number in range(14):
        for length in (0, 1, 3, 5, 4097, (1 << 25) - 1, (1 << 25) + 1, 0xFFFFFFFF):
            yield option(number, b"\xff" * 8, length)
    for number in (LIST, INFO, GO, LIST_META, SET_META, STRUCTURED, EXTENDED):
        for data in (
            many, none + many, none + many + bytes(4096), none + b"\xff\xff" + bytes(10),
            none + struct.pack(">I", 30000) + bytes(120000),
            none + struct.pack(">I", 2) + texts(b"qemu:dirty-bitmap:"),
        ):  # fmt: skip
            yield option(number, data)


def test_hostile_handshakes(server, victim):
    before = descriptors(server)
    for said in hostile_options():
        with Client(server.path) as client:
            client.say(struct.pack(">I", 3), said)
            client.hear(0.02)
    victim.still_served()
    # Many options, and none of the answers is read.
    held = [Client(server.path, 0.2) for _ in range(8)]
    for client, number in zip(held, (LIST, LIST_META, INFO, 99) * 2, strict=True):
        client.say(struct.pack(">I", 3), *[option(number, texts(b"") + bytes(4))] * 3000)
    # Stalled at every place of the handshake.
    for cut in (0, 2, 4, 9, 15, 20):
        held.append(Client(server.path))
        held[-1].say((struct.pack(">I", 3) + option(GO, bytes(6)))[:cut])
    victim.still_served()
    for client in held:
        client.socket.close()
    settled(server, before)


@pytest.mark.parametrize("mode", MODES)
def test_hostile_requests(server, victim, mode):
    before = descriptors(server)
    ranges = (
        (0, 0), ((1 << 64) - 1, 1), ((1 << 63) - 1, 4096), (SIZE, 1), (SIZE - 1, 2),
        (0, 0xFFFFFFFF), ((1 << 64) - 512, 512), (1 << 20, MAX_PAYLOAD + 1),
    )  # fmt: skip
    for kind in range(12):
        for offset, length in ranges:
            with Client(server.path).go(mode) as client:
                flags = random.choice((0, 1, 2, 8, 16, 32, 0xFFFF))
                client.say(client.request(kind, offset, length, flags), bytes(5000))
                client.hear(0.02)
    for length in range(1, 400, 9):
        with Client(server.path).go(mode) as client:
            client.say(random.randbytes(length))
            client.hear(0.02)
    settled(server, before)


@pytest.mark.parametrize("mode", MODES)
def test_disconnected_in_the_middle(server, victim, mode):
    before = descriptors(server)
    for count in range(0, 65536, 4001):
        with Client(server.path).go(mode) as client:
            client.say(client.request(WRITE, 1 << 20, 65536, 0, bytes(count)))
            client.say(client.request(READ, 0, MAX_PAYLOAD)[: count % 30])
    settled(server, before)


@pytest.mark.parametrize("mode", MODES)
def test_replies_that_nobody_reads(server, victim, mode):
    before = descriptors(server)
    held = [Client(server.path).go(mode) for _ in range(4)]
    for client in held:
        client.socket.setblocking(False)
        client.say(*[client.request(READ, 0, MAX_PAYLOAD)] * 100)
    if mode != "simple":
        status = Client(server.path).go(mode)
        status.socket.setblocking(False)
        status.say(*[status.request(BLOCK_STATUS, 0, SIZE - 512)] * 3000)
        held.append(status)
    victim.still_served()
    for client in held:
        client.socket.close()
    settled(server, before)


def test_bad_payloads_of_block_status(server, victim):
    before = descriptors(server)
    length = struct.pack(">Q", 4096)
    for data in (
        b"", length, length + bytes(3), length + struct.pack(">I", 99) * 3,
        struct.pack(">QI", 1 << 63, 0), length + struct.pack(">I", 1) * 20000,
    ):  # fmt: skip
        for extra in (0, 8, 1 << 62):
            with Client(server.path).go("extended") as client:
                client.say(client.request(BLOCK_STATUS, 0, len(data) + extra, PAYLOAD_LEN, data))
                client.hear(0.05)
    settled(server, before)


def test_thousands_of_connections(server, victim):
    before = descriptors(server)
    for _ in range(2000):
        with Client(server.path):
            pass
    victim.still_served()
    held = []
    for _ in range(600):
        held.append(socket.socket(socket.AF_UNIX))
        held[-1].setblocking(False)
        with contextlib.suppress(BlockingIOError):
            held[-1].connect(str(server.path))
    victim.still_served()
    for one in held:
        one.close()
    settled(server, before)


def test_it_ends_under_all_of_them(server):
    held = [Client(server.path).go(mode) for mode in MODES for _ in range(2)]
    for client in held[::2]:
        client.socket.setblocking(False)
        client.say(*[client.request(READ, 0, 1 << 20)] * 300)
    for client in held[1::2]:
        client.say(client.request(WRITE, 0, 1 << 20, 0, bytes(1000)))
    held += [Client(server.path) for _ in range(5)]
    server.send_signal(signal.SIGTERM)
    assert server.wait(LIMIT) == 0
    for client in held:
        client.socket.close()
