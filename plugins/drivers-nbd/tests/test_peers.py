# SPDX-License-Identifier: Apache-2.0
"""What QEMU's servers and nbdkit tell, and how it is shown: held to what qemu-img shows."""

import json
import os
import subprocess

import anyio
import pytest

import servers
from blockyard.errors import ImageIOError
from blockyard.yard import Yard

SIZE = 4 << 20
CLUSTER = 65536


@pytest.fixture
def chain(tmp_path):
    """A qcow2 image on another one, with a bitmap, and zeroes among its clusters."""
    base, top = tmp_path / "base.qcow2", tmp_path / "top.qcow2"
    run = subprocess.check_call
    run(["qemu-img", "create", "-q", "-f", "qcow2", base, f"{SIZE}"])
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", base], stdout=subprocess.DEVNULL)
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top])
    run(["qemu-img", "bitmap", "--add", "-f", "qcow2", top, "b0"])
    writes = ["-c", "write -P 2 512k 1M", "-c", "write -z 2M 64k", "-c", "write -P 3 3M 64k"]
    run(["qemu-io", "-f", "qcow2", *writes, top], stdout=subprocess.DEVNULL)
    return top


def _map_of_qemu(options):
    """Extents as ``(start, length, data, zero)``."""
    text = "json:" + json.dumps(options)
    done = subprocess.check_output(["qemu-img", "map", "--output=json", text])
    return _merged((e["start"], e["length"], e["data"], e["zero"]) for e in json.loads(done))


def _merged(extents):
    found = []
    for start, length, *state in extents:
        if found and found[-1][2:] == tuple(state):
            start, length = found[-1][0], found.pop()[1] + length
        found.append((start, length, *state))
    return found


async def _map(options, step):
    """The same by questions about ``step`` bytes at most."""
    async with Yard() as yard, await yard.open({**options, "read-only": True}) as image:
        found, at = [], 0
        while at < image.length:
            told = await image.block_status(at, min(step, image.length - at))
            found.append((at, told.bytes, told.data, told.zero))
            at += told.bytes
        return _merged(found), image.node.driver.link_stats()["asked"]


CONTEXTS = [None, "qemu:allocation-depth", "qemu:dirty-bitmap:b0"]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("step", [SIZE, CLUSTER, 4096 + 512])
def test_contexts_are_shown_as_qemu_shows_them(tmp_path, chain, context, step):
    server = servers.qemu_nbd(tmp_path, chain, "-r", "-A", "-B", "b0", fmt="qcow2")
    options = server.options(**({"x-dirty-bitmap": context} if context else {}))
    found, asked = anyio.run(_map, options, step)
    assert found == _map_of_qemu(options)
    # A walk in small steps asks not much more than one in large ones.
    assert asked <= 24


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_storage_daemon_tells_the_same(tmp_path, chain, context):
    node = f"driver=qcow2,node-name=disk,file.driver=file,file.filename={chain}"
    export = "id=e,node-name=disk,name=,writable=on,allocation-depth=on,bitmaps.0=b0"
    server = servers.storage_daemon(tmp_path, "--blockdev", node, export=export)
    options = server.options(**({"x-dirty-bitmap": context} if context else {}))
    assert anyio.run(_map, options, SIZE)[0] == _map_of_qemu(options)


def test_what_is_written_here_is_told_at_once(tmp_path):
    """Extents that are remembered do not outlive a write."""

    async def run(options):
        async with Yard() as yard, await yard.open(options) as image:
            for at in range(0, SIZE, CLUSTER):
                assert (await image.block_status(at, CLUSTER)).zero
                await image.write(min(at + CLUSTER, SIZE - CLUSTER), b"x" * CLUSTER)
                if at + CLUSTER < SIZE:
                    assert not (await image.block_status(at + CLUSTER, CLUSTER)).zero
                await image.write_zeroes(at + CLUSTER, CLUSTER) if at + CLUSTER < SIZE else None

    anyio.run(run, servers.nbdkit(tmp_path, "memory", f"{SIZE}").options())


@pytest.mark.parametrize(
    ("error", "number"), [("EPERM", 1), ("EIO", 5), ("ENOMEM", 12), ("ENOSPC", 28)]
)
def test_errors_of_nbdkit_are_those_of_requests(tmp_path, error, number):
    words = ["--filter=error", "memory", f"{SIZE}", f"error={error}", "error-pwrite-rate=100%"]

    async def run(options):
        async with Yard() as yard, await yard.open(options) as image:
            with pytest.raises(ImageIOError) as caught:
                await image.write(0, bytes(4096))
            assert caught.value.errno == number
            assert await image.read(0, 4096) == bytes(4096)

    anyio.run(run, servers.nbdkit(tmp_path, *words).options())


def test_failing_requests_fail_alone(tmp_path):
    """A tenth of them fail; the others are whole, whatever order they come in."""
    words = ["--filter=error", "--filter=delay", "pattern", f"{SIZE}"]
    words += ["error-pread-rate=10%", "rdelay=1ms"]
    good, bad = [], []

    async def read(image, at):
        try:
            data = await image.read(at, 4096)
        except ImageIOError:
            bad.append(at)
        else:
            expected = b"".join(i.to_bytes(8, "big") for i in range(at, at + 4096, 8))
            good.append(data == expected)

    async def run(options):
        async with (
            Yard() as yard,
            await yard.open({**options, "read-only": True}) as image,
            anyio.create_task_group() as tasks,
        ):
            for i in range(500):
                tasks.start_soon(read, image, i * 4096)

    anyio.run(run, servers.nbdkit(tmp_path, *words).options())
    assert all(good)
    assert bad
    assert len(good) + len(bad) == 500


def test_a_large_disk_of_many_extents_is_walked_with_few_questions(tmp_path):
    file = servers.image(tmp_path, 64 << 20)
    with file.open("r+b") as out:
        for at in range(0, 64 << 20, 1 << 20):
            out.seek(at)
            out.write(os.urandom(4096))
    server = servers.qemu_nbd(tmp_path, file, "-r")
    found, asked = anyio.run(_map, server.options(), 1 << 20)
    assert found == _map_of_qemu(server.options())
    assert asked < 20
