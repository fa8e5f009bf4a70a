# SPDX-License-Identifier: Apache-2.0
"""Options of the handshake over a real socket, good ones and bad ones."""

import struct

import pytest

from blockyard_exports_nbd.wire import Info, Mode, Option, Reply, TransmissionFlag

ALLOCATION, DEPTH = "base:allocation", "qemu:allocation-depth"
MODES = [Mode.SIMPLE, Mode.STRUCTURED, Mode.EXTENDED]


def test_the_greeting_offers_fixed_newstyle(server):
    with server.connect() as client:
        assert client.greeting == b"NBDMAGICIHAVEOPT\0\3"


def test_list_names_all_exports_with_descriptions(server):
    with server.connect() as client:
        replies = client.option(Option.LIST)

        names = {data[4 : 4 + int.from_bytes(data[:4])] for _, data in replies[:-1]}
        assert names == {b"disk", b"ro", b"null"}
        assert (Reply.SERVER, b"\0\0\0\2ronot to be written") in replies
        assert replies[-1] == (Reply.ACK, b"")


@pytest.mark.parametrize("option", [Option.LIST, Option.STRUCTURED_REPLY, Option.EXTENDED_HEADERS])
def test_data_where_none_belongs_is_invalid(server, option):
    with server.connect() as client:
        [(kind, text)] = client.option(option, b"x")

        assert kind == Reply.ERR_INVALID
        assert b"unexpected length" in text
        client.go("ro")


def test_unknown_options_are_unsupported_and_their_data_skipped(server):
    with server.connect() as client:
        for option, data in ((4, b""), (12, b"x" * 100), (0xFFFFFFFF, bytes(1 << 20))):
            assert client.option(option, data)[-1][0] == Reply.ERR_UNSUP
        client.go("ro")


def test_an_option_of_more_than_32_mib_ends_the_connection(server):
    with server.connect() as client:
        client.send_option(99, length=(32 << 20) + 1)

        assert client.at_end()
    server.check_others()


def test_a_known_option_too_long_to_be_meant_is_refused_and_skipped(server):
    with server.connect() as client:
        assert client.option(Option.GO, bytes(1 << 20))[-1][0] == Reply.ERR_TOO_BIG
        client.go("ro")


def test_starttls_is_refused_by_policy(server):
    with server.connect() as client:
        assert client.option(Option.STARTTLS) == [(Reply.ERR_POLICY, b"TLS not configured")]
        assert client.option(Option.STARTTLS, b"x")[0][0] == Reply.ERR_INVALID
        client.go("ro")


def test_abort_is_acknowledged(server):
    with server.connect() as client:
        assert client.option(Option.ABORT) == [(Reply.ACK, b"")]
        assert client.at_end()


@pytest.mark.parametrize("option", [Option.INFO, Option.GO])
def test_an_unknown_export_is_named(server, option):
    with server.connect() as client:
        [(kind, text)] = client.option(option, client.info_data("nope"))

        assert (kind, text) == (Reply.ERR_UNKNOWN, b"export 'nope' not present")
        long = client.option(option, client.info_data("x" * 4096))[0][1]
        assert long == b"export '" + b"x" * 80 + b"...' not present"
        client.go("ro")


def test_info_tells_everything_and_stays_in_the_handshake(server):
    with server.connect() as client:
        data = client.info_data("ro", Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE, 77)
        replies = client.option(Option.INFO, data)

        found = {struct.unpack(">H", data[:2])[0]: data[2:] for _, data in replies[:-1]}
        assert found[Info.NAME] == b"ro"
        assert found[Info.DESCRIPTION] == b"not to be written"
        assert struct.unpack(">III", found[Info.BLOCK_SIZE]) == (1, 4096, 32 << 20)
        assert struct.unpack(">QH", found[Info.EXPORT])[0] == len(server.content)
        assert replies[-1] == (Reply.ACK, b"")
        client.go("ro")


def test_transmission_flags_follow_export_and_mode(server):
    flag = TransmissionFlag
    always = flag.HAS_FLAGS | flag.SEND_FLUSH | flag.SEND_FUA | flag.SEND_CACHE
    always |= flag.CAN_MULTI_CONN
    writing = flag.SEND_TRIM | flag.SEND_WRITE_ZEROES | flag.SEND_FAST_ZERO
    with server.connect() as client:
        assert client.go("ro")[1] == always | flag.READ_ONLY
    with server.connect() as client:
        assert client.go("disk", Mode.STRUCTURED)[1] == always | writing | flag.SEND_DF
    with server.connect() as client:
        found = client.go("disk", Mode.EXTENDED, [ALLOCATION])[1]
        assert found == always | writing | flag.SEND_DF | flag.BLOCK_STATUS_PAYLOAD


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\5ro",
        b"\0\0\0\2ro",
        b"\0\0\0\2ro\0\1",
        b"\0\0\0\2ro\0\0x",
        b"\0\0\x10\1" + b"x" * 4097 + b"\0\0",
        b"\xff\xff\xff\xffro\0\0",
        b"\0\0\0\3r\0o\0\0",
    ],
)
@pytest.mark.parametrize("option", [Option.INFO, Option.GO])
def test_malformed_info_is_invalid_and_the_connection_lives(server, option, data):
    with server.connect() as client:
        assert client.option(option, data)[-1][0] == Reply.ERR_INVALID
        client.go("ro")


def test_structured_replies_are_negotiated_once(server):
    with server.connect() as client:
        assert client.option(Option.STRUCTURED_REPLY)[0][0] == Reply.ACK
        assert client.option(Option.STRUCTURED_REPLY)[0][0] == Reply.ERR_INVALID
        assert client.option(Option.EXTENDED_HEADERS)[0][0] == Reply.ACK
        assert client.option(Option.EXTENDED_HEADERS)[0][0] == Reply.ERR_INVALID
        assert client.option(Option.STRUCTURED_REPLY)[0][0] == Reply.ERR_EXT_HEADER_REQD


# -- metadata contexts


def names(replies):
    assert replies[-1][0] == Reply.ACK
    return [data[4:].decode() for _, data in replies[:-1]]


@pytest.mark.parametrize(
    ("queries", "found"),
    [
        ([], [ALLOCATION, DEPTH]),
        (["base:"], [ALLOCATION]),
        (["qemu:"], [DEPTH]),
        ([ALLOCATION], [ALLOCATION]),
        (["base:", "qemu:"], [ALLOCATION, DEPTH]),
        (["base:nothing", "x-nobody:all", "", "nocolon"], []),
        (["y" * 5000, ALLOCATION], [ALLOCATION]),
    ],
)
def test_listing_contexts(server, queries, found):
    with server.connect() as client:
        client.negotiate(Mode.STRUCTURED)
        replies = client.option(Option.LIST_META_CONTEXT, client.meta_data("disk", *queries))

        assert names(replies) == found
        assert all(data[:4] == bytes(4) for _, data in replies[:-1])


def test_wildcards_select_nothing(server):
    with server.connect() as client:
        client.negotiate(Mode.STRUCTURED)
        data = client.meta_data("disk", "base:", "qemu:", "qemu:dirty-bitmap:")

        assert names(client.option(Option.SET_META_CONTEXT, data)) == []


def test_allocation_depth_is_there_only_where_it_was_asked_for(server):
    with server.connect() as client:
        client.negotiate(Mode.STRUCTURED)
        replies = client.option(Option.SET_META_CONTEXT, client.meta_data("ro", DEPTH, ALLOCATION))

        assert names(replies) == [ALLOCATION]


def test_contexts_need_structured_replies_and_a_known_export(server):
    with server.connect() as client:
        data = client.meta_data("disk", ALLOCATION)
        assert client.option(Option.SET_META_CONTEXT, data)[0][0] == Reply.ERR_INVALID
        client.negotiate(Mode.STRUCTURED)
        data = client.meta_data("nope", ALLOCATION)
        assert client.option(Option.SET_META_CONTEXT, data)[0][0] == Reply.ERR_UNKNOWN


@pytest.mark.parametrize(
    "tail", [b"", b"\0\0\0\1", b"\0\0\0\1\0\0\0\5base", b"\xff\xff\xff\xff", b"\0\0\0\0x"]
)
def test_malformed_queries_are_invalid(server, tail):
    with server.connect() as client:
        client.negotiate(Mode.STRUCTURED)
        for option in (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT):
            data = client.name_data("disk") + tail
            assert client.option(option, data)[-1][0] == Reply.ERR_INVALID
        client.go("disk")


def test_a_failed_set_clears_the_one_before(server):
    with server.connect() as client:
        client.negotiate(Mode.EXTENDED)
        client.option(Option.SET_META_CONTEXT, client.meta_data("disk", ALLOCATION))
        client.option(Option.SET_META_CONTEXT, b"")
        replies = client.option(Option.GO, client.info_data("disk"))

        flags = int.from_bytes(replies[-2][1][-2:])
        assert not flags & TransmissionFlag.BLOCK_STATUS_PAYLOAD


# -- EXPORT_NAME and clients of old


@pytest.mark.parametrize(("flags", "padding"), [(0, 124), (1, 124), (2, 0), (3, 0)])
def test_export_name(server, flags, padding):
    with server.connect(flags=flags) as client:
        client.send_option(Option.EXPORT_NAME, b"disk")
        size, _ = struct.unpack(">QH", client.recv(10))

        assert size == len(server.content)
        assert client.recv(padding) == bytes(padding)
        assert client.read(0, 512) == server.content[:512]


@pytest.mark.parametrize("name", [b"nope", b"x" * 4097, b"\xff\xfe"])
def test_export_name_of_what_is_not_there_hangs_up(server, name):
    with server.connect() as client:
        client.send_option(Option.EXPORT_NAME, name)
        assert client.at_end()
    server.check_others()


def test_export_name_does_not_go_with_extended_headers(server):
    with server.connect() as client:
        client.negotiate(Mode.EXTENDED)
        client.send_option(Option.EXPORT_NAME, b"disk")
        assert client.at_end()


def test_other_options_need_fixed_newstyle(server):
    with server.connect(flags=0) as client:
        client.send_option(Option.LIST)
        assert client.at_end()


def test_unknown_client_flags_hang_up(server):
    with server.connect(flags=0x80000003) as client:
        assert client.at_end()


def test_a_wrong_option_magic_hangs_up(server):
    with server.connect() as client:
        client.send(b"IHAVEOPX" + bytes(8))
        assert client.at_end()
    server.check_others()


@pytest.mark.parametrize("mode", MODES)
def test_a_command_sent_with_go_in_one_packet_is_served(server, mode):
    with server.connect() as client:
        client.negotiate(mode)
        data = client.info_data("disk")
        header, _ = client.header(0, 512, 512)
        client.send(struct.pack(">8sII", b"IHAVEOPT", Option.GO, len(data)) + data + header)
        while client.option_reply()[1] != Reply.ACK:
            pass
        assert client.chunk().data[-512:] == server.content[512:1024]
