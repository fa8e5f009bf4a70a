# SPDX-License-Identifier: Apache-2.0
"""Clients that mean no good: each time another is served and the data is intact."""

import contextlib
import os
import random
import socket
import struct
import time

import pytest

from blockyard_exports_nbd.connection import Budget
from blockyard_exports_nbd.wire import Mode

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
MODES = [Mode.SIMPLE, Mode.STRUCTURED, Mode.EXTENDED]
MIB = 1 << 20


def until(condition, seconds=15.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def stats(server, export="disk"):
    return server.portal.call(lambda: server.server.exports[export].statistics())


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\3", b"\0\0\0\3IHAVEOPT\0\0\0\7\0\0"])
def test_half_a_handshake_and_then_nothing(server, sent):
    clients = [server.connect(flags=None) for _ in range(20)]
    for client in clients:
        client.send(sent)
    server.check_others()
    for client in clients:
        client.close()
    until(lambda: server.server.connections == 0)
    server.check_others()


def test_a_handshake_takes_no_longer_than_it_may(bare):
    bare.add_nodes()
    bare.listen(handshake_max_seconds=1)
    bare.export("disk", "ro")
    with bare.connect() as client:
        begin = time.monotonic()
        assert client.at_end()
        assert 0.5 < time.monotonic() - begin < 5
    bare.check_others()


def test_an_endless_handshake_is_cut_off_by_its_bytes(server):
    # Wherever in it the end comes.
    with server.connect() as client, pytest.raises((OSError, EOFError)):  # noqa: PT012
        for _ in range(10):
            client.option(99, bytes(30 << 20))
        client.recv(1)
    server.check_others()


def test_a_client_that_never_reads_is_not_read_any_more(server):
    with server.connect("disk", Mode.SIMPLE, timeout=2.0) as client:
        header, _ = client.header(READ, 0, MIB)
        client.socket.setblocking(False)
        until(lambda: not _sends(client.socket, header * 100))
        held = stats(server)[0].held

        assert held <= 64 * MIB + 32 * MIB
        server.check_others()
    until(lambda: not stats(server))


def _sends(sock, data):
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


def test_ten_thousand_requests_without_reading_a_reply(server):
    with server.connect("disk", Mode.STRUCTURED) as client:
        packet = b"".join(client.header(READ, i % 1000 * 512, 512)[0] for i in range(10000))
        client.socket.setblocking(False)
        sent = 0
        while (count := _sends(client.socket, packet[sent : sent + 65536])) and sent < len(packet):
            sent += count
            time.sleep(0.001)
        server.check_others()
        assert stats(server)[0].in_flight <= 128

        client.socket.setblocking(True)
        client.socket.settimeout(20)
        for _ in range(sent // 28):
            assert client.chunk().error == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("have", [0, 1, 100000])
def test_disconnected_in_the_middle_of_a_payload(server, mode, have):
    for _ in range(5):
        with server.connect("disk", mode) as client:
            header, _ = client.header(WRITE, 0, 2 * MIB, 32 if mode == Mode.EXTENDED else 0)
            client.send(header + bytes(have))
    until(lambda: not stats(server))
    server.check_others()


def test_disconnected_with_replies_under_way(server):
    for _ in range(20):
        with server.connect("disk") as client:
            client.send(b"".join(client.header(READ, 0, MIB)[0] for _ in range(40)))
    until(lambda: not stats(server))
    server.check_others()


def test_half_closed_clients_get_their_replies(server):
    with server.connect("disk") as client:
        cookies = {client.request(READ, 0, 512) for _ in range(100)}
        client.socket.shutdown(socket.SHUT_WR)
        assert {client.chunk().cookie for _ in range(100)} == cookies
        assert client.at_end()


def test_noise_of_all_kinds(server):
    chance = random.Random(20)
    for _ in range(60):
        mode = chance.choice(MODES)
        # It may be dropped for what came before.
        with server.connect("ro", mode) as client, contextlib.suppress(BrokenPipeError):
            for _ in range(chance.randrange(1, 20)):
                client.send(_noise(client, chance))
    until(lambda: not stats(server, "ro"))
    server.check_others()


def _noise(client, chance):
    if chance.random() < 0.05:
        return chance.randbytes(chance.randrange(100))
    kind = chance.choice([*range(8), 9, 0xFFFF])
    if kind == DISC:
        kind = FLUSH
    offset = chance.choice([0, 512, 4 * MIB - 1, 4 * MIB, 1 << 63, (1 << 64) - 1])
    length = chance.choice([0, 1, 512, MIB, 33 * MIB if kind != WRITE else 5, 0xFFFFFFFF - 1])
    if kind == WRITE:
        length = min(length, MIB)
    header, _ = client.header(kind, offset, length, chance.choice([0, 0, 1, 4, 8, 0x40]))
    return header + (bytes(length) if kind == WRITE else b"")


def test_connections_beyond_the_limit_wait_their_turn(bare):
    bare.add_nodes()
    bare.listen(max_connections=3)
    bare.export("disk", "ro")
    clients = [bare.connect("ro") for _ in range(3)]
    late = bare.connect(flags=None, timeout=0.5)
    with pytest.raises(TimeoutError):
        late.recv(18)

    clients.pop().close()
    late.socket.settimeout(10)
    assert late.recv(18).startswith(b"NBDMAGIC")
    late.close()
    bare.check_others()
    for client in clients:
        client.close()


def test_silent_clients_keep_nobody_out(bare):
    bare.add_nodes()
    bare.listen(max_connections=4, handshake_max_seconds=1000)
    bare.export("disk", "ro")
    silent = [bare.connect(flags=None) for _ in range(4)]
    bare.check_others()  # long before their time is up
    assert silent[0].at_end()
    for client in silent:
        client.close()


def test_five_hundred_connections(bare):
    bare.add_nodes()
    bare.listen(max_connections=0)
    bare.export("disk", "ro")
    clients = [bare.connect("ro") for _ in range(500)]
    assert all(client.read(0, 512) == bare.content[:512] for client in clients)
    bare.check_others()
    for client in clients:
        client.close()
    until(lambda: bare.server.connections == 0)
    assert bare.portal.call(lambda: bare.server.budget.held) == 0


def test_hard_removal_does_not_wait_for_clients(server):
    idle = server.connect("disk")
    stuck = server.connect("disk", timeout=5)
    header, _ = stuck.header(READ, 0, MIB)
    stuck.send(header * 60)
    half = server.connect("disk")
    half.send(half.header(WRITE, 0, MIB)[0] + bytes(1000))
    begin = time.monotonic()
    server.execute("block-export-del", id="disk", mode="hard")

    assert time.monotonic() - begin < 5
    assert all(client.at_end() for client in (idle, stuck, half))
    server.check_others()


def test_stopping_the_server_does_not_wait_for_clients(server):
    clients = [server.connect("disk") for _ in range(3)]
    clients += [server.connect() for _ in range(3)]
    clients += [server.connect(flags=None) for _ in range(3)]
    stuck = server.connect("disk")
    stuck.send(stuck.header(READ, 0, MIB)[0] * 60)
    begin = time.monotonic()
    server.execute("nbd-server-stop")

    assert time.monotonic() - begin < 5
    assert not os.path.exists(server.path)
    assert all(client.at_end() for client in [*clients, stuck])
    with pytest.raises(OSError):
        server.connect()


@pytest.fixture
def tight(bare, monkeypatch):
    """A server with 8 MiB for all clients and 4 MiB for each."""
    module = __import__("blockyard_exports_nbd.server", fromlist=["Budget"])
    monkeypatch.setattr(module, "Budget", lambda: Budget(total=8 * MIB, client=4 * MIB))
    return bare.standard()


def test_a_client_holds_no_more_than_its_budget(tight):
    with tight.connect("disk", Mode.SIMPLE) as client:
        client.send(client.header(READ, 0, MIB)[0] * 50)
        until(lambda: stats(tight)[0].held > 2 * MIB)
        assert stats(tight)[0].held <= 4 * MIB
        tight.check_others()


def test_one_request_is_served_however_small_the_budget(tight):
    with tight.connect("null", Mode.SIMPLE) as client:
        assert client.read(0, 6 * MIB) == bytes(6 * MIB)


def test_memory_held_by_a_stalled_client_is_taken_back_when_others_need_it(tight):
    stalled = [tight.connect("disk", Mode.SIMPLE) for _ in range(3)]
    for client in stalled:
        client.send(client.header(READ, 0, MIB)[0] * 50)
    until(lambda: sum(s.held for s in stats(tight)) >= 6 * MIB)
    small = tight.connect("ro")
    assert small.read(0, 4096) == tight.content[:4096]

    with tight.connect("ro", Mode.SIMPLE, timeout=30) as large:
        assert large.read(0, 3 * MIB) == tight.content[: 3 * MIB]
    tight.check_others()
    small.close()


def test_a_client_that_disconnects_at_once_a_thousand_times(server):
    for _ in range(1000):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(server.path)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: server.server.connections == 0)
    server.check_others()
