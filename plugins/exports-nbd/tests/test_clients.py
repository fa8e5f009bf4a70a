# SPDX-License-Identifier: Apache-2.0
"""Real clients: libnbd's programs and bindings, qemu-img, qemu-io and fio."""

import json
import os
import subprocess

import pytest

MIB = 1 << 20
SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's libnbd bindings are for this one


def run(*command, check=True, **options):
    found = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=60, **options
    )
    assert not check or found.returncode == 0, found.stdout + found.stderr
    return found.stdout + (found.stderr if not check else "")


def tool(name):
    """The program, or what the environment names instead (BLOCKYARD_QEMU_IO...)."""
    return os.environ.get("BLOCKYARD_" + name.upper().replace("-", "_"), name)


# -- libnbd


def test_nbdinfo_sees_what_qemu_would_show(server):
    [found] = json.loads(run("nbdinfo", "--json", server.uri()))["exports"]

    assert found["export-size"] == len(server.content)
    assert found["contexts"] == ["base:allocation", "qemu:allocation-depth"]
    assert (found["block_size_minimum"], found["block_size_maximum"]) == (1, 32 * MIB)
    able = ("cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero")
    assert all(found["can_" + name] for name in able)
    assert not found["is_read_only"]


def test_nbdinfo_lists_all_exports(server):
    found = json.loads(run("nbdinfo", "--json", "--list", f"nbd+unix://?socket={server.path}"))
    assert {export["export-name"] for export in found["exports"]} == {"disk", "ro", "null"}


def test_nbdinfo_maps_the_file(server):
    found = json.loads(run("nbdinfo", "--json", "--map", server.uri()))
    assert [(e["offset"], e["length"], e["type"]) for e in found] == [
        (0, MIB, 0),
        (MIB, 3 * MIB, 3),
    ]
    depth = json.loads(run("nbdinfo", "--json", "--map=qemu:allocation-depth", server.uri()))
    assert [(e["offset"], e["type"]) for e in depth] == [(0, 1)]


def test_nbdcopy_there_and_back(server, tmp_path):
    out = tmp_path / "out"
    run("nbdcopy", server.uri(), out)
    assert out.read_bytes() == server.content

    other = os.urandom(2 * MIB) + bytes(2 * MIB)
    out.write_bytes(other)
    run("nbdcopy", "--flush", "--destination-is-zero", out, server.uri())
    run("nbdcopy", "--flush", out, server.uri())
    assert server.image.read_bytes() == other


LIBNBD = """
import nbd, sys
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
h.set_strict_mode(0)
assert h.get_structured_replies_negotiated()
data = bytes(range(256)) * 16
h.pwrite(data, 8192, nbd.CMD_FLAG_FUA)
assert h.pread(4096, 8192) == data
assert h.pread_structured(4096, 8192, lambda *args: 0, nbd.CMD_FLAG_DF) == data
h.zero(4096, 8192, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(4096, 8192) == bytes(4096)
h.trim(65536, 65536)
h.cache(65536, 0)
h.flush()
seen = []
h.block_status(h.get_size(), 0, lambda context, offset, entries, error: seen.append(entries) or 0)
assert sum(seen[0][::2]) == h.get_size()
for wrong in (lambda: h.pread(512, h.get_size()), lambda: h.pwrite(b"x", h.get_size())):
    try:
        wrong()
    except nbd.Error as error:
        assert error.errno in ("EINVAL", "ENOSPC"), error.errno
    else:
        raise SystemExit("no error")
# many at a time
buffers = [nbd.Buffer(4096) for _ in range(64)]
cookies = [h.aio_pread(buffer, i * 4096) for i, buffer in enumerate(buffers)]
while cookies := [cookie for cookie in cookies if not h.aio_command_completed(cookie)]:
    assert h.poll(10000) == 1
h.shutdown()
print("fine")
"""


def test_libnbd_uses_every_command(server):
    assert run(SYSTEM_PYTHON, "-c", LIBNBD, server.uri()) == "fine\n"


# -- QEMU


def test_qemu_io_reads_and_writes(server):
    commands = [
        "write -P 7 1M 1M",
        "read -P 7 1M 1M",
        "write -f -P 8 3000 5000",
        "read -P 8 3000 5000",
        "write -z -u 2M 512k",
        "read -P 0 2M 512k",
        "discard 3M 64k",
        "aio_write -P 9 3M 64k",
        "aio_flush",
        "read -P 9 3M 64k",
        "flush",
    ]
    options = [word for command in commands for word in ("-c", command)]
    out = run(tool("qemu-io"), "-f", "raw", *options, server.uri())
    assert "failed" not in out

    with server.image.open("rb") as file:
        file.seek(3000)
        assert file.read(5000) == b"\x08" * 5000


def test_qemu_img_converts_both_ways(server, tmp_path):
    out = tmp_path / "out.qcow2"
    run(tool("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", server.uri(), out)
    assert "identical" in run(tool("qemu-img"), "compare", "-F", "raw", out, server.uri())

    source = tmp_path / "new.raw"
    source.write_bytes(os.urandom(MIB) + bytes(MIB) + os.urandom(2 * MIB))
    run(tool("qemu-img"), "convert", "-n", "-f", "raw", "-O", "raw", source, server.uri())
    assert server.image.read_bytes() == source.read_bytes()


def test_qemu_img_maps_the_file(server):
    out = run(tool("qemu-img"), "map", "--output=json", "-f", "raw", server.uri())
    found = [(e["start"], e["length"], e["data"], e["zero"]) for e in json.loads(out)]
    assert found == [(0, MIB, True, False), (MIB, 3 * MIB, False, True)]


def test_qemu_reads_the_refusal_of_an_unknown_export(server):
    out = run(tool("qemu-io"), "-f", "raw", "-c", "read 0 512", server.uri("nope"), check=False)
    assert "server reported: export 'nope' not present" in out


def test_a_read_only_export_is_opened_only_for_reading(server):
    out = run(tool("qemu-io"), "-f", "raw", "-c", "write 0 512", server.uri("ro"), check=False)
    assert "permission denied" in out.lower()
    run(tool("qemu-io"), "-r", "-f", "raw", "-c", "read 0 512", server.uri("ro"))


# -- fio


@pytest.mark.parametrize("size", ["4k", "1000", "256k"])
def test_fio_verifies_what_it_wrote(server, size):
    out = run(
        "fio", "--name=t", "--ioengine=nbd", f"--uri={server.uri()}", "--rw=randwrite",
        f"--bs={size}", "--iodepth=32", "--size=4m", "--verify=crc32c", "--do_verify=1",
        "--verify_fatal=1", "--output-format=json", f"--bsrange={size}-{size}",
    )  # fmt: skip
    [job] = json.loads(out[out.index("{") :])["jobs"]
    assert job["error"] == 0
