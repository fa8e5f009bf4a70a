# SPDX-License-Identifier: Apache-2.0
"""The server's commands: addresses, limits, exports that come and go, errors in QEMU's words."""

import os
import socket
import time

import pytest

from blockyard.errors import BlockyardError
from blockyard_exports_nbd.wire import Mode, Option, Reply


def refused(server, text, command, **arguments):
    with pytest.raises(BlockyardError) as caught:
        server.execute(command, **arguments)
    assert str(caught.value) == text


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def inet(**data):
    return {"type": "inet", "data": {"host": "127.0.0.1", "port": "0", **data}}


def unix(path, **data):
    return {"type": "unix", "data": {"path": str(path), **data}}


def connected(server, address, family):
    """Whether a client gets data at that address."""
    server.add_nodes()
    server.export("disk", "ro")
    raw = type(server.connect.__self__).connect.__globals__["raw_client"]
    with raw.RawClient(address, family=family) as client:
        client.go("ro")
        return client.read(0, 512) == server.content[:512]


# -- addresses


def test_a_unix_socket_replaces_what_was_there_and_goes_with_the_server(bare):
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(bare.path)
    bare.listen()
    assert connected(bare, bare.path, socket.AF_UNIX)
    bare.execute("nbd-server-stop")
    assert not os.path.exists(bare.path)


def test_a_file_that_is_no_socket_stays(bare, tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(b"data")
    text = f"Failed to bind socket to {image}: Address already in use"
    refused(bare, text, "nbd-server-start", addr=unix(image))
    assert image.read_bytes() == b"data"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (unix("/a\0b"), "UNIX socket path '/a\0b' has a zero byte in it"),
        (unix("x" * 108), f"UNIX socket path '{'x' * 108}' is too long"),
        (inet(host="x" * 64, port="1"), "address resolution failed for x*:1: "),
        (inet(host="a\0b", port="1"), "address resolution failed for a\0b:1: "),
    ],
)
def test_names_that_no_system_takes(bare, address, text):
    with pytest.raises(BlockyardError, match=text):
        bare.execute("nbd-server-start", addr=address)
    bare.listen()


def test_an_abstract_unix_socket(bare):
    for tight, padding in ((True, 0), (False, 100)):
        name = f"blockyard-{os.getpid()}"
        bare.execute("nbd-server-start", addr=unix(name, abstract=True, tight=tight))
        address = b"\0" + name.encode()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(address.ljust(108, b"\0") if padding else address)
            assert sock.recv(8) == b"NBDMAGIC"
        bare.execute("nbd-server-stop")


def test_ipv4(bare):
    bare.execute("nbd-server-start", addr=inet())
    [address] = bare.portal.call(lambda: bare.server.addresses)
    assert connected(bare, address, socket.AF_INET)


def test_ipv6(bare):
    bare.execute("nbd-server-start", addr=inet(host="::1"))
    [address] = bare.portal.call(lambda: bare.server.addresses)
    assert connected(bare, address, socket.AF_INET6)


def test_all_addresses_share_a_port(bare):
    bare.execute("nbd-server-start", addr=inet(host=""))
    found = bare.portal.call(lambda: bare.server.addresses)
    assert len({address[1] for address in found}) == 1
    assert {len(address) for address in found} == {2, 4}


def test_a_range_of_ports(bare):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(
            bare,
            "Failed to find an available port: Address already in use",
            "nbd-server-start",
            addr=inet(port=str(port)),
        )
        bare.execute("nbd-server-start", addr=inet(port=str(port), to=min(port + 50, 65535)))
        [(_, found)] = bare.portal.call(lambda: bare.server.addresses)
        assert port < found <= port + 50


def test_a_descriptor_that_was_passed(bare):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = listener.getsockname()
        number = listener.detach()
        bare.execute("nbd-server-start", addr={"type": "fd", "data": {"str": str(number)}})
    assert connected(bare, address, socket.AF_INET)


def test_addresses_that_are_no_good(bare, tmp_path):
    start = "nbd-server-start"
    long = "/" + "x" * 200
    refused(bare, f"UNIX socket path '{long}' is too long", start, addr=unix(long))
    gone = tmp_path / "gone/socket"
    text = f"Failed to bind socket to {gone}: No such file or directory"
    refused(bare, text, start, addr=unix(gone))
    text = "keep-alive option is not supported for passive sockets"
    refused(bare, text, start, addr=inet(**{"keep-alive": True}))
    text = "Cannot disable IPv4 and IPv6 at same time"
    refused(bare, text, start, addr=inet(ipv4=False, ipv6=False))
    with open(os.devnull) as file:
        text = f"File descriptor '{file.fileno()}' is not a socket"
        refused(bare, text, start, addr={"type": "fd", "data": {"str": str(file.fileno())}})
    for text in ("name", "", "-1", "7x", str(1 << 31)):
        address = {"type": "fd", "data": {"str": text}}
        refused(bare, f"Unable to parse FD number {text}", start, addr=address)
    with pytest.raises(BlockyardError, match="address resolution failed for nowhere:1: "):
        bare.execute(start, addr=inet(host="nowhere", port="1", numeric=True))
    bare.listen()


# -- the server


def test_there_is_one_server(bare):
    refused(bare, "NBD server not running", "nbd-server-stop")
    bare.listen()
    refused(bare, "NBD server already running", "nbd-server-start", addr=inet())
    bare.execute("nbd-server-stop")
    refused(bare, "NBD server not running", "nbd-server-stop")
    bare.listen()


def test_tls_credentials_that_are_not_there(bare):
    text = "No TLS credentials with id 'tls0'"
    refused(bare, text, "nbd-server-start", addr=inet(), tls_creds="tls0", tls_authz="authz0")
    bare.listen(tls_authz="authz0")


def test_no_export_without_a_server(bare):
    bare.add_nodes()
    with pytest.raises(BlockyardError, match="^NBD server not running$"):
        bare.export("disk")
    bare.listen()
    bare.export("disk", writable=True)


def test_one_connection_means_no_multi_conn(bare):
    bare.add_nodes()
    bare.listen(max_connections=1)
    bare.export("disk")
    with bare.connect("disk") as client:
        assert not client.flags & 1 << 8


# -- exports


def test_names_are_the_servers(server):
    with pytest.raises(BlockyardError, match="^NBD server already has export named 'disk'$"):
        server.execute("block-export-add", type="nbd", id="other", node_name="null", name="disk")
    server.execute("block-export-add", type="nbd", id="plain", node_name="null", name="")
    server.execute("block-export-del", id="null")
    server.execute("block-export-add", type="nbd", id="default", node_name="null")
    with server.connect("null") as client, server.connect("") as other:
        assert client.size == other.size


@pytest.mark.parametrize("member", ["name", "description"])
def test_strings_that_are_too_long(server, member):
    text = "x" * 4097
    what = "export name" if member == "name" else member
    with pytest.raises(BlockyardError, match=f"^{what} 'x*' too long$"):
        server.execute(
            "block-export-add", **{"type": "nbd", "id": "long", "node-name": "null", member: text}
        )
    server.check_others()


def test_bitmaps_that_are_not_there(server):
    add = {"type": "nbd", "id": "b", "node_name": "null", "name": "b"}
    refused(server, "Bitmap 'b0' is not found", "block-export-add", bitmaps=["b0"], **add)
    external = [{"node": "disk", "name": "b1"}]
    refused(server, "Dirty bitmap 'b1' not found", "block-export-add", bitmaps=external, **add)
    external = [{"node": "nope", "name": "b1"}]
    refused(server, "Node 'nope' not found", "block-export-add", bitmaps=external, **add)
    server.export("null", "b")


def test_a_used_export_is_removed_only_the_hard_way(server):
    with server.connect("disk") as client:
        refused(server, "export 'disk' still in use", "block-export-del", id="disk")
        assert client.read(0, 512) == server.content[:512]
        server.execute("block-export-del", id="disk", mode="hard")
        assert client.at_end()
    with server.connect() as client:
        [(kind, _)] = client.option(Option.GO, client.info_data("disk"))
        assert kind == Reply.ERR_UNKNOWN
    server.check_others()


def test_exports_come_and_go_during_a_handshake(server):
    with server.connect() as client:
        server.execute("block-export-del", id="null")
        assert client.option(Option.INFO, client.info_data("null"))[-1][0] == Reply.ERR_UNKNOWN
        server.export("null", "late")
        client.go("late")


def test_contexts_of_an_export_that_was_replaced_do_not_count(server):
    with server.connect() as client:
        client.negotiate(Mode.STRUCTURED)
        client.option(Option.SET_META_CONTEXT, client.meta_data("null", "base:allocation"))
        server.execute("block-export-del", id="null")
        server.export("null")
        client.option(Option.GO, client.info_data("null"))
        assert client.call(7, 0, 512).error == 22


def test_the_old_commands(bare):
    bare.add_nodes()
    refused(bare, "NBD server not running", "nbd-server-add", device="disk")
    bare.listen()
    bare.execute("nbd-server-add", device="disk", name="ro", description="old style")
    bare.execute("nbd-server-add", device="null", writable=True)
    bare.check_others()
    found = {export["id"] for export in bare.execute("query-block-exports")}
    assert found == {"ro", "null"}
    bare.execute("nbd-server-remove", name="null")
    refused(bare, "Export 'null' is not found", "nbd-server-remove", name="null")
    with bare.connect("ro"):
        refused(bare, "export 'ro' still in use", "nbd-server-remove", name="ro")
        bare.execute("nbd-server-remove", name="ro", mode="hard")


def test_an_old_style_writable_export_of_a_read_only_node_is_read_only(bare):
    bare.listen()
    path = str(bare.image)
    bare.execute("blockdev-add", driver="file", filename=path, node_name="r", read_only=True)
    bare.execute("nbd-server-add", device="r", writable=True)
    with bare.connect("r") as client:
        assert client.flags & 2


def test_connections_spread_over_iothreads(server):
    for name in ("io0", "io1"):
        server.execute("object-add", qom_type="iothread", id=name)
    server.export("disk", "spread", iothread=["io0", "io1"])
    clients = [server.connect("spread") for _ in range(6)]
    export = server.portal.call(lambda: server.server.exports["spread"])
    found = [connection.loop.name for connection in export._connections]

    assert sorted(found) == ["io0"] * 3 + ["io1"] * 3
    assert all(client.read(0, 4096) == server.content[:4096] for client in clients)


def test_new_clients_see_a_new_length(server):
    server.export("null", "small")
    with server.connect("null") as before:
        server.execute("block-export-del", id="disk")
        server.execute("block-export-del", id="ro")
        server.execute("block_resize", node_name="disk", size=8 << 20)
        server.export("disk")
        with server.connect("disk") as client:
            assert client.size == 8 << 20
        assert before.size == 1 << 40


def test_counters(server):
    with server.connect("ro", Mode.STRUCTURED) as client:
        client.read(0, 4096)
        client.call(4, 0, 512)
        [found] = server.portal.call(lambda: server.server.exports["ro"].statistics())

        assert (found.requests, found.refused, found.failed) == (2, 1, 0)
        assert found.bytes_in == 2 * 28
        assert found.bytes_out >= 4096 + 28
        assert found.receives >= 2
        assert found.sends == 2


def test_clients_outlive_a_move_to_another_iothread(server):
    server.execute("object-add", qom_type="iothread", id="io0")
    before = server.connect("disk")
    server.execute("x-blockdev-set-iothread", node_name="disk", iothread="io0", force=True)
    after = server.connect("disk")
    server.execute("x-blockdev-set-iothread", node_name="disk", iothread=None, force=True)
    for client in (before, after):
        assert client.read(0, 65536) == server.content[:65536]
        assert client.write(2 << 20, b"moved" * 100) == 0

    # The one that came meanwhile is still served there.
    with pytest.raises(BlockyardError, match="'io0' is in use"):
        server.execute("object-del", id="io0")
    after.close()
    export = server.portal.call(lambda: server.server.exports["disk"])
    wait_for(lambda: len(export._connections) == 1)
    server.execute("object-del", id="io0")
    assert before.read(0, 65536) == server.content[:65536]
