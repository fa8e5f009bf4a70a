# SPDX-License-Identifier: Apache-2.0
"""Servers that go away and come back, or do not."""

import random

import anyio
import anyio.to_thread
import pytest
from mock_server import SIMPLE_MODE, SIZE, STRUCTURED, MockServer, export, go

import servers
from blockyard.errors import ImageIOError
from blockyard.yard import Yard
from blockyard_drivers_nbd import link

DELAY = "reconnect-delay"
DISK = 4 << 20
WORKERS = 8
PART = DISK // WORKERS


@pytest.fixture
def quick(monkeypatch):
    """Drained sections lose their patience soon."""
    monkeypatch.setattr(link, "GONE_SECONDS", 0.1)
    monkeypatch.setattr(link, "SILENT_SECONDS", 0.3)


def _ours(folder):
    file = servers.image(folder, DISK)
    return servers.blockyard(folder, "--blockdev", f"driver=file,filename={file},node-name=disk")


def _qemus(folder):
    return servers.qemu_nbd(folder, servers.image(folder, DISK))


async def _work(image, number, model, going):
    """Write and read in a part of the disk of its own, and hold every answer to the model."""
    roll = random.Random(number)
    base = number * PART
    while going():
        at = roll.randrange(PART - 65536)
        length = roll.choice((1, 512, 4096, 65536))
        kind = roll.randrange(4)
        if kind == 0:
            data = await image.read(base + at, length)
            assert data == model[base + at : base + at + length]
        elif kind == 1:
            await image.write_zeroes(base + at, length)
            model[base + at : base + at + length] = bytes(length)
        else:
            data = roll.randbytes(length)
            await image.write(base + at, data, fua=roll.random() < 0.2)
            model[base + at : base + at + length] = data


@pytest.mark.parametrize("start", [_ours, _qemus])
def test_nothing_is_lost_when_the_server_crashes_under_load(tmp_path, start):
    server = start(tmp_path)
    model = bytearray(DISK)
    rounds = 4

    async def crash(image, done):
        for _ in range(rounds):
            before = image.node.driver.link_stats()["requests"]
            while image.node.driver.link_stats()["requests"] < before + 200:
                await anyio.sleep(0.01)
            await anyio.to_thread.run_sync(server.kill)
            await anyio.to_thread.run_sync(server.start)
        done.append(True)

    async def run():
        done = []
        async with Yard() as yard, await yard.open(server.options(**{DELAY: 120})) as image:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(crash, image, done)
                for number in range(WORKERS):
                    tasks.start_soon(_work, image, number, model, lambda: not done)
            await image.flush()
            assert await image.read(0, DISK) == model
            assert image.stats().op["write"].failed == 0
            assert image.node.driver.link_stats()["resent"] > 0

    anyio.run(run)
    assert (tmp_path / "disk.img").read_bytes() == model


def test_requests_wait_for_the_delay_and_fail_until_the_server_is_back(tmp_path):
    server = _qemus(tmp_path)

    async def run():
        async with Yard() as yard, await yard.open(server.options(**{DELAY: 1})) as image:
            await image.write(0, b"kept")
            server.kill()
            started = anyio.current_time()
            with pytest.raises(ImageIOError) as caught:
                await image.read(0, 4)
            assert caught.value.errno == 5
            assert anyio.current_time() - started >= 0.9
            with anyio.fail_after(0.9), pytest.raises(ImageIOError):
                await image.read(0, 4)
            await anyio.to_thread.run_sync(server.start)
            await _until_it_reads(image, b"kept")

    anyio.run(run)


async def _until_it_reads(image, data):
    with anyio.fail_after(60):
        while True:
            try:
                assert await image.read(0, len(data)) == data
            except ImageIOError:
                await anyio.sleep(0.05)
            else:
                return


def test_without_a_delay_requests_fail_at_once(tmp_path):
    server = _qemus(tmp_path)

    async def run():
        async with Yard() as yard, await yard.open(server.options()) as image:
            await image.write(0, b"kept")
            server.kill()
            with pytest.raises(ImageIOError):
                await image.read(0, 4)
            with pytest.raises(ImageIOError):
                await image.write(0, b"lost")
            await anyio.to_thread.run_sync(server.start)
            await _until_it_reads(image, b"kept")

    anyio.run(run)


def test_opening_is_tried_until_the_timeout(tmp_path):
    path = tmp_path / "late"

    async def run():
        options = {"driver": "nbd", "server": {"type": "unix", "path": str(path)}}
        made = []

        async def late():
            await anyio.sleep(0.3)
            made.append(MockServer(path))

        async with Yard() as yard:
            with pytest.raises(ImageIOError, match="No such file or directory"):
                await yard.open({**options, "open-timeout": 0})
            with pytest.raises(ImageIOError, match="No such file or directory"):
                await yard.open({**options, "open-timeout": 1})
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(late)
                image = await yard.open({**options, "open-timeout": 60})
            async with image:
                assert image.length == SIZE
        made[0].close()

    anyio.run(run)


def test_a_drained_section_does_not_wait_for_a_server_that_is_gone(tmp_path, quick):
    server = _qemus(tmp_path)

    async def run():
        async with Yard() as yard, await yard.open(server.options(**{DELAY: 3600})) as image:
            server.kill()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_fails, image)
                while not image.node.driver.link_stats()["waiting"]:
                    await anyio.sleep(0.01)
                with anyio.fail_after(30):
                    async with image.drained():
                        pass
            await anyio.to_thread.run_sync(server.start)
            await _until_it_reads(image, bytes(4))

    anyio.run(run)


async def _fails(image):
    with pytest.raises(ImageIOError) as caught:
        await image.read(0, 4096)
    assert caught.value.errno == 5


def test_a_drained_section_does_not_wait_for_a_silent_server(tmp_path, quick):
    async def run(server):
        async with (
            Yard() as yard,
            await yard.open(server.options()) as image,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_fails, image)
            while not server.commands:
                await anyio.sleep(0.01)
            with anyio.fail_after(30):
                async with image.drained():
                    pass

    with MockServer(tmp_path / "s", serve=lambda c: b"" if c.type == 0 else c.simple()) as server:
        anyio.run(run, server)


def test_everything_ends_although_the_server_is_gone(tmp_path, quick):
    server = _qemus(tmp_path)

    async def run():
        with anyio.fail_after(60):
            async with Yard() as yard:
                image = await yard.open(server.options(**{DELAY: 3600}))
                server.kill()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_fails, image)
                    await anyio.sleep(0.1)
                    await image.close()

    anyio.run(run)


@pytest.mark.parametrize(
    "later",
    [
        {7: go(export(size=2 * SIZE))},
        {7: go(export(flags=3))},
        {7: go(export(flags=1))},
        SIMPLE_MODE,
    ],
    ids=["longer", "read-only", "without abilities", "without a context"],
)
def test_an_export_that_has_become_another_one_is_not_taken(tmp_path, later):
    """Requests wait, and fail in the end; what was promised to users is kept."""

    def serve(command):
        return None if command.type == 0 else command.simple()

    async def run(server):
        async with Yard() as yard, await yard.open(server.options(**{DELAY: 1})) as image:
            server.answers = later
            await _fails(image)
            assert server.clients > 1
            assert [command.type for command in server.commands] == [0]

    with MockServer(tmp_path / "s", STRUCTURED, serve) as server:
        anyio.run(run, server)


@pytest.mark.parametrize(("mode", "many"), [("auto", True), ("disable", False)])
def test_more_requests_get_more_connections_where_the_server_says_so(tmp_path, mode, many):
    words = ["--filter=multi-conn", "--filter=delay", "memory", "4M"]
    server = servers.nbdkit(tmp_path, *words, f"multi-conn-mode={mode}", "delay-read=5ms")

    async def run():
        async with Yard() as yard, await yard.open(server.options()) as image:
            connections = 1
            for _ in range(20):
                async with anyio.create_task_group() as tasks:
                    for i in range(100):
                        tasks.start_soon(image.read, i * 4096, 4096)
                connections = image.node.driver.link_stats()["connections"]
            assert (connections > 1) == many

    anyio.run(run)
