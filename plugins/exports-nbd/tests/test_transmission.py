# SPDX-License-Identifier: Apache-2.0
"""Every command of the transmission phase in every mode, and what is wrong with one."""

import errno
import os
import struct

import pytest

from blockyard_exports_nbd.wire import Mode

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << bit for bit in range(6))
OVERFLOW = 75
ALLOCATION, DEPTH = "base:allocation", "qemu:allocation-depth"
MODES = [Mode.SIMPLE, Mode.STRUCTURED, Mode.EXTENDED]
CHUNKED = MODES[1:]
MAXIMUM = 32 << 20
DATA, SIZE = 1 << 20, 4 << 20


@pytest.fixture(params=MODES, ids=lambda mode: mode.name.lower())
def client(server, request):
    with server.connect("disk", request.param) as client:
        client.server = server
        yield client


def test_reads_answer_what_the_file_holds(client):
    content = client.server.content
    for offset, length in ((0, 1), (511, 1026), (0, DATA), (DATA - 100, 5000), (SIZE - 3, 3)):
        assert client.read(offset, length) == content[offset : offset + length]


def test_writes_are_read_again_and_reach_the_file(client):
    for offset, length in ((3, 1), (4096, 4096), (65000, 70000), (1 << 20, 2 << 20)):
        data = os.urandom(length)
        assert client.write(offset, data, FUA) == 0
        assert client.read(offset, length) == data
        with client.server.image.open("rb") as file:
            file.seek(offset)
            assert file.read(length) == data


def test_many_requests_in_one_packet(client):
    cookies, packet = {}, b""
    for i in range(500):
        header, cookie = client.header(READ, i * 512, 512)
        packet += header
        cookies[cookie] = i * 512
    client.send(packet)

    while cookies:
        chunk = client.chunk()
        offset = cookies.pop(chunk.cookie)
        assert chunk.data[-512:] == client.server.content[offset : offset + 512]


def test_a_request_may_come_byte_by_byte(client):
    flags = PAYLOAD_LEN if client.mode == Mode.EXTENDED else 0
    header, cookie = client.header(WRITE, 100, 10, flags)
    for byte in header + b"0123456789":
        client.send(bytes([byte]))

    assert client.chunk().cookie == cookie
    assert client.read(100, 10) == b"0123456789"


@pytest.mark.parametrize("flags", [0, NO_HOLE, FUA, NO_HOLE | FUA])
def test_write_zeroes(client, flags):
    assert client.call(WRITE_ZEROES, 1000, 100000, flags).error == 0
    assert client.read(0, 1000) == client.server.content[:1000]
    assert client.read(1000, 100000) == bytes(100000)


def test_fast_zero_succeeds_or_is_not_supported(client):
    assert client.call(WRITE_ZEROES, 0, 65536, FAST_ZERO).error in (0, errno.ENOTSUP)


@pytest.mark.parametrize("kind", [FLUSH, TRIM, CACHE])
@pytest.mark.parametrize("flags", [0, FUA])
def test_flush_trim_and_cache(client, kind, flags):
    length = 0 if kind == FLUSH else 65536
    assert client.call(kind, 0, length, flags).error == 0


def test_disc_ends_the_connection_after_what_is_in_flight(client):
    cookie = client.request(READ, 0, 4096)
    client.request(DISC)

    assert client.chunk().cookie == cookie
    assert client.at_end()


@pytest.mark.parametrize("kind", [READ, WRITE, TRIM, CACHE, WRITE_ZEROES])
def test_commands_of_no_bytes_succeed(client, kind):
    flags = PAYLOAD_LEN if client.mode == Mode.EXTENDED and kind == WRITE else 0
    assert client.call(kind, 4096, 0, flags).error == 0


def test_the_whole_of_a_huge_disk_is_zeroed_and_trimmed(server):
    with server.connect("null", Mode.EXTENDED) as client:
        assert client.call(WRITE_ZEROES, 0, 1 << 40).error == 0
        assert client.call(TRIM, 0, 1 << 40).error == 0


# -- errors on a connection that lives on


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (READ, errno.EINVAL),
        (WRITE, errno.ENOSPC),
        (TRIM, errno.EINVAL),
        (CACHE, errno.EINVAL),
        (WRITE_ZEROES, errno.ENOSPC),
    ],
)
@pytest.mark.parametrize("offset", [SIZE - 511, SIZE, SIZE + 1, (1 << 63) - 1, (1 << 64) - 512])
def test_past_the_end(client, kind, error, offset):
    flags = PAYLOAD_LEN if client.mode == Mode.EXTENDED and kind == WRITE else 0
    payload = bytes(512) if kind == WRITE else b""
    assert client.call(kind, offset, 512, flags, payload).error == error
    client.read(0, 512)


def test_nothing_is_written_to_a_read_only_export(server):
    for mode in MODES:
        with server.connect("ro", mode) as client:
            assert client.write(0, b"x" * 5000) == errno.EPERM
            assert client.call(TRIM, 0, 512).error == errno.EPERM
            assert client.call(WRITE_ZEROES, 0, 512).error == errno.EPERM
            assert client.call(FLUSH).error == 0
            assert client.read(0, 512) == server.content[:512]


def test_what_is_larger_than_the_maximum(server):
    with server.connect("null", Mode.STRUCTURED) as client:
        assert len(client.read(0, MAXIMUM)) == MAXIMUM
        assert client.call(READ, 0, MAXIMUM + 1).error == OVERFLOW
        assert client.call(CACHE, 0, MAXIMUM + 1).error == OVERFLOW
        assert client.call(TRIM, 0, 0xFFFFFFFF).error == 0
        assert client.write(0, bytes(MAXIMUM)) == 0
        assert client.write(0, bytes(MAXIMUM + 1)) == errno.EINVAL
        assert client.write(0, bytes(10)) == 0


@pytest.mark.parametrize("kind", [8, 9, 255, 65535])
def test_unknown_commands_are_invalid(client, kind):
    assert client.call(kind, 0, 512).error == errno.EINVAL
    client.read(0, 512)


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (READ, NO_HOLE),
        (READ, REQ_ONE),
        (READ, 0x8000),
        (WRITE, NO_HOLE),
        (WRITE, FAST_ZERO),
        (FLUSH, DF),
        (TRIM, NO_HOLE),
        (CACHE, DF),
        (WRITE_ZEROES, DF),
    ],
)
def test_flags_that_do_not_belong_there_are_invalid(client, kind, flags):
    payload = bytes(512) if kind == WRITE else b""
    if kind == WRITE and client.mode == Mode.EXTENDED:
        flags |= PAYLOAD_LEN
    assert client.call(kind, 0, 512, flags, payload).error == errno.EINVAL
    assert client.read(0, 512) == client.server.content[:512]


def test_df_needs_structured_replies(server):
    with server.connect("disk") as client:
        assert client.call(READ, 0, 512, DF).error == errno.EINVAL


def test_payload_where_none_belongs_is_skipped(server):
    with server.connect("disk", Mode.EXTENDED) as client:
        for kind in (READ, FLUSH, TRIM, CACHE, WRITE_ZEROES, 99):
            found = client.call(kind, 0, 100000, PAYLOAD_LEN, bytes(100000))
            assert found.error == errno.EINVAL
        assert client.read(0, DATA) == server.content[:DATA]


def test_errors_carry_a_text(server):
    with server.connect("ro", Mode.STRUCTURED) as client:
        client.request(WRITE, 0, 1, payload=b"x")
        [chunk] = client.reply()
        assert (chunk.error, chunk.message) == (errno.EPERM, "Export is read-only")


def test_block_status_needs_contexts(client):
    assert client.call(BLOCK_STATUS, 0, 512).error == errno.EINVAL


# -- broken framing


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_magic_ends_only_this_connection(server, mode):
    with server.connect("disk", mode) as client:
        client.send(b"\x25\x60\x95\x14" + bytes(60))
        assert client.at_end()
    server.check_others()


def test_the_other_modes_magic_is_wrong_too(server):
    with server.connect("disk", Mode.EXTENDED) as client:
        client.send(struct.pack(">IHHQQI", 0x25609513, 0, READ, 1, 0, 512))
        assert client.at_end()


def test_a_payload_beyond_4_gib_is_refused_and_the_client_dropped(server):
    with server.connect("disk", Mode.EXTENDED) as client:
        client.request(WRITE, 0, 1 << 33, PAYLOAD_LEN)
        assert client.chunk().error == errno.EINVAL
        assert client.at_end()
    server.check_others()


# -- structured reads


@pytest.mark.parametrize("mode", CHUNKED)
def test_zeroes_of_a_null_device_are_sent_as_holes(server, mode):
    with server.connect("null", mode) as client:
        for length in (4096, 1 << 20):
            client.request(READ, 8192, length)
            [chunk] = client.reply()
            assert (chunk.type, chunk.data) == (2, struct.pack(">QI", 8192, length))


@pytest.mark.parametrize("mode", CHUNKED)
def test_df_forbids_holes(server, mode):
    with server.connect("null", mode) as client:
        client.request(READ, 0, 4096, DF)
        [chunk] = client.reply()
        assert (chunk.type, chunk.data) == (1, bytes(8 + 4096))


def test_simple_replies_hold_all_bytes(server):
    with server.connect("null") as client:
        assert client.read(0, 100000) == bytes(100000)


# -- block status


@pytest.mark.parametrize("mode", CHUNKED)
def test_block_status_of_all_contexts(server, mode):
    with server.connect("disk", mode, [ALLOCATION, DEPTH]) as client:
        assert client.status(0, SIZE) == {0: [(DATA, 0), (SIZE - DATA, 3)], 1: [(SIZE, 1)]}
        assert client.status(DATA - 512, 1024)[0] == [(512, 0), (512, 3)]


@pytest.mark.parametrize("mode", CHUNKED)
def test_req_one_is_one_extent_within_the_request(server, mode):
    with server.connect("disk", mode, [ALLOCATION]) as client:
        assert client.status(4096, SIZE - 4096, REQ_ONE) == {0: [(DATA - 4096, 0)]}
        assert client.status(4096, 8192, REQ_ONE) == {0: [(8192, 0)]}


@pytest.mark.parametrize("mode", CHUNKED)
def test_block_status_refused(server, mode):
    with server.connect("disk", mode, [ALLOCATION]) as client:
        for offset, length in ((0, 0), (SIZE, 1), (SIZE - 1, 2), (1 << 63, 512)):
            with pytest.raises(OSError) as caught:
                client.status(offset, length)
            assert caught.value.errno == errno.EINVAL
        client.status(0, 512)


def test_64_bit_extents(server):
    with server.connect("null", Mode.EXTENDED, [ALLOCATION]) as client:
        [(length, state)] = client.status(0, 1 << 40)[0]
        assert (length, state & 2) == (1 << 40, 2)


def test_a_payload_chooses_contexts(server):
    with server.connect("disk", Mode.EXTENDED, [ALLOCATION, DEPTH]) as client:
        payload = struct.pack(">QI", 4096, 1)
        assert client.status(0, len(payload), PAYLOAD_LEN, payload) == {1: [(4096, 1)]}


@pytest.mark.parametrize(
    "payload",
    [
        struct.pack(">Q", 4096),
        struct.pack(">QI", 4096, 2),
        struct.pack(">QII", 4096, 1, 1),
        struct.pack(">QIII", 4096, 0, 1, 0),
        struct.pack(">QIIIIII", 4096, *range(6)),
        struct.pack(">QI", 1 << 60, 0),
        struct.pack(">QI", 0, 0),
        b"\0" * 10,
        b"\0",
        bytes(100000),
    ],
)
def test_a_bad_payload_is_skipped_and_invalid(server, payload):
    with server.connect("disk", Mode.EXTENDED, [ALLOCATION, DEPTH]) as client:
        with pytest.raises(OSError) as caught:
            client.status(0, len(payload), PAYLOAD_LEN, payload)
        assert caught.value.errno == errno.EINVAL
        assert client.read(0, 512) == server.content[:512]


def test_sparse_reads_come_in_pieces_that_fit(server):
    """Whether a node tells its holes cheaply or not, the bytes are right."""
    with server.image.open("r+b") as file:
        for i in range(0, 32, 2):
            file.seek(DATA + i * 65536)
            file.write(os.urandom(65536))
    content = server.image.read_bytes()
    for mode in CHUNKED:
        with server.connect("disk", mode) as client:
            assert client.read(0, SIZE) == content
            assert client.read(DATA - 1000, 1 << 20) == content[DATA - 1000 :][: 1 << 20]
