# SPDX-License-Identifier: Apache-2.0
"""Real NBD clients read and write what the daemon serves."""

import json
import signal

import pytest


def test_nbdinfo_sees_the_export_as_it_is(daemon, client, image):
    uri = daemon().serve(image)
    info = json.loads(client("nbdinfo", "--json", uri))
    (export,) = info["exports"]
    assert export["export-size"] == 8 << 20
    assert export["export-name"] == "disk"
    assert not export["is_read_only"]
    assert export["can_multi_conn"]
    assert export["can_fua"]
    assert "base:allocation" in export["contexts"]
    assert info["structured"]


def test_nbdinfo_lists_exports(daemon, client, image, tmp_path):
    server = daemon()
    server.serve(image, "one", writable=False)
    other = tmp_path / "other.img"
    other.write_bytes(bytes(4096))
    server.serve(other, "two")
    listed = json.loads(client("nbdinfo", "--list", "--json", server.uri("")))
    assert {e["export-name"] for e in listed["exports"]} == {"one", "two"}


def test_the_map_shows_the_hole(daemon, client, image):
    uri = daemon().serve(image)
    extents = json.loads(client("nbdinfo", "--map", "--json", uri))
    hole = next(e for e in extents if e["type"] == 3)
    assert (hole["offset"], hole["length"]) == (4 << 20, 2 << 20)


def test_nbdcopy_reads_everything(daemon, client, image, tmp_path):
    uri = daemon().serve(image, writable=False)
    client("nbdcopy", uri, tmp_path / "copy.img")
    assert (tmp_path / "copy.img").read_bytes() == image.read_bytes()


def test_nbdcopy_writes_everything(daemon, client, image, tmp_path):
    target = tmp_path / "target.img"
    target.write_bytes(b"\xff" * (8 << 20))
    server = daemon()
    client("nbdcopy", "--flush", image, server.serve(target))
    server.stop()
    assert target.read_bytes() == image.read_bytes()


def test_qemu_img_converts_and_compares(daemon, client, image, tmp_path):
    uri = daemon().serve(image)
    client("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, tmp_path / "copy.qcow2")
    out = client("qemu-img", "compare", "-f", "raw", "-F", "qcow2", uri, tmp_path / "copy.qcow2")
    assert "identical" in out


def test_qemu_img_info_reports_no_error(daemon, client, image):
    uri = daemon().serve(image)
    info = json.loads(client("qemu-img", "info", "--output=json", "-f", "raw", uri))
    assert info["virtual-size"] == 8 << 20


@pytest.mark.parametrize(
    "commands",
    [
        ("write -P 17 5000 70000", "read -P 17 5000 70000"),
        ("write -z 8192 65536", "read -P 0 8192 65536"),
        ("write -z -u 8192 65536", "read -P 0 8192 65536"),
        ("write -f -P 3 0 512", "read -P 3 0 512"),
        ("discard 65536 65536", "flush", "read 65536 65536"),
        ("aio_write -P 1 0 1M", "aio_write -P 2 1M 1M", "aio_flush", "read -P 2 1M 1M"),
    ],
    ids=lambda c: c[0],
)
def test_qemu_io_writes_and_reads_back(daemon, client, image, commands):
    uri = daemon().serve(image)
    words = [word for command in commands for word in ("-c", command)]
    out = client("qemu-io", "-f", "raw", *words, uri)
    assert "Pattern verification failed" not in out
    assert "error" not in out.lower()


def test_qemu_io_is_refused_writing_on_a_read_only_export(daemon, client, image):
    before = image.read_bytes()
    uri = daemon().serve(image, writable=False)
    done = client("qemu-io", "-f", "raw", "-c", "write 0 512", uri, ok=False)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    client("qemu-io", "-r", "-f", "raw", "-c", "read 0 512", uri)
    assert image.read_bytes() == before


def test_fio_verifies_what_it_writes(daemon, client, tmp_path):
    target = tmp_path / "target.img"
    target.write_bytes(bytes(16 << 20))
    uri = daemon().serve(target)
    client(
        "fio", "--name=verify", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bs=4k",
        "--iodepth=16", "--size=16m", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
        cwd=tmp_path,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_was_acknowledged_survives_the_daemons_end(daemon, client, image, number):
    server = daemon()
    client("qemu-io", "-f", "raw", "-c", "write -P 9 1M 1M", server.serve(image))
    server.stop(number)
    assert image.read_bytes()[1 << 20 : 2 << 20] == b"\x09" * (1 << 20)


def test_four_connections_of_libnbd_read_in_turn(daemon, client, image):
    uri = daemon().serve(image)
    client(
        "nbdsh",
        "-c",
        f"""
handles = [nbd.NBD() for _ in range(4)]
for handle in handles:
    handle.connect_uri({uri!r})
data = open({str(image)!r}, "rb").read()
for turn in range(64):
    offset = turn * 65536
    assert handles[turn % 4].pread(65536, offset) == data[offset : offset + 65536]
for handle in handles:
    handle.shutdown()
""",
        # The system's Python has the module, whatever is first on our PATH.
        env={"PATH": "/usr/bin:/bin"},
    )


def test_clients_see_the_disk_in_a_qcow2_image(daemon, client, image, qcow2, tmp_path):
    uri = daemon().serve(qcow2, driver="qcow2")
    client("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, image)
    client("nbdcopy", uri, tmp_path / "copy.img")
    assert (tmp_path / "copy.img").read_bytes() == image.read_bytes()


def test_fio_verifies_what_it_writes_to_a_new_qcow2_image(daemon, client, tmp_path):
    target = tmp_path / "target.qcow2"
    client("qemu-img", "create", "-q", "-f", "qcow2", target, "16M")
    server = daemon()
    uri = server.serve(target, driver="qcow2")
    client(
        "fio", "--name=verify", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bs=4k",
        "--iodepth=16", "--size=16m", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
        cwd=tmp_path,
    )  # fmt: skip
    server.stop()
    client("qemu-img", "check", target)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_daemons_end_leaves_a_qcow2_image_whole(daemon, client, image, qcow2, number):
    server = daemon()
    uri = server.serve(qcow2, driver="qcow2")
    client("qemu-io", "-f", "raw", "-c", "write -P 9 4M 1M", "-c", "discard 0 1M", uri)
    server.stop(number)
    assert "No errors were found" in client("qemu-img", "check", qcow2)
    client("qemu-io", "-f", "qcow2", "-r", "-c", "read -P 9 4M 1M", qcow2)
