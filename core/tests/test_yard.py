# SPDX-License-Identifier: Apache-2.0
"""The library: images opened by programs, on both event loops and without any."""

import errno
import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from blockyard.blocking import BlockingYard
from blockyard.errors import BlockyardError, ImageIOError, InvalidOption, PermissionConflict
from blockyard.objects import Object, ObjectType
from blockyard.request import Op, StatusFlags
from blockyard.schema import visit
from blockyard.schema.qom import ObjectOptions
from blockyard.yard import Yard

anyio_only = pytest.mark.anyio


@anyio_only
async def test_an_image_is_read_and_written(yard: Yard) -> None:
    async with await yard.open(driver="mem", size=8192) as image:
        assert image.length == 8192
        assert await image.write(1000, b"hello") == 5
        assert await image.read(998, 9) == b"\0\0hello\0\0"
        buffer = bytearray(5)
        assert await image.read_into(1000, buffer) == 5
        assert buffer == b"hello"
        await image.flush()
        await image.write_zeroes(1000, 2)
        await image.discard(4096, 512)
        await image.prefetch(0, 4096)
        assert await image.read(1000, 5) == b"\0\0llo"
        assert (await image.block_status(0, 8192)).flags & StatusFlags.DATA
        await image.resize(4096)
        assert image.length == 4096
    assert not yard.graph.nodes


@anyio_only
async def test_options_as_a_dict_and_as_keywords(yard: Yard) -> None:
    one = {"driver": "form", "node-name": "a", "read-only": True, "file": {"driver": "mem"}}
    async with await yard.open(one) as image:
        assert image.read_only
    async with await yard.open(
        driver="form", node_name="b", read_only=True, file={"driver": "mem", "node_name": "c"}
    ) as image:
        assert set(yard.graph.nodes) == {"b", "c"}


@anyio_only
async def test_errors_have_qemus_texts_and_builtin_bases(yard: Yard) -> None:
    with pytest.raises(ValueError, match="^Parameter 'driver' is missing$"):
        await yard.open({})
    with pytest.raises(InvalidOption, match="^Parameter 'sise' is unexpected$"):
        await yard.open(driver="mem", sise=1)
    async with await yard.open(driver="mem", size=4096) as image:
        with pytest.raises(ImageIOError) as caught:
            await image.read(4096, 1)
        assert caught.value.errno == 5
        for bad in (-1, 1 << 63):
            with pytest.raises(ValueError, match="out of range"):
                await image.read(bad, 1)
    async with await yard.open(driver="mem", read_only=True) as image:
        with pytest.raises(OSError, match="Operation not permitted"):
            await image.write(0, b"x")


@anyio_only
async def test_nobody_else_writes_meanwhile(yard: Yard) -> None:
    async with await yard.open(driver="mem", node_name="disk") as image:
        with pytest.raises(PermissionConflict):
            await yard.attach("disk")
        async with await yard.attach("disk", writable=False, share_writes=True) as reader:
            await image.write(0, b"x")
            assert await reader.read(0, 1) == b"x"


@anyio_only
async def test_a_cancelled_read_leaves_its_buffer_pinned(yard: Yard) -> None:
    async with await yard.open(driver="mem") as image:
        gate: Any = image.node.driver.gate  # type: ignore[attr-defined]
        gate.clear()
        buffer = bytearray(512)
        with anyio.move_on_after(0.05) as scope:
            await image.read_into(0, buffer)
        assert scope.cancelled_caught
        gc.collect()
        with pytest.raises(BufferError):
            buffer.append(0)
        gate.set()
        await image.flush()
        async with image.drained():
            pass
        await anyio.sleep(0.01)
        gc.collect()
        buffer.append(0)


@anyio_only
async def test_cancelling_never_leaves_half_a_change(yard: Yard) -> None:
    for turn in range(30):
        with anyio.move_on_after(turn * 0.0005):
            async with await yard.open(
                driver="form", file={"driver": "over", "file": {"driver": "mem"}}
            ) as image:
                await image.read(0, 512)
                await anyio.sleep(turn * 0.0003)
        assert not yard.graph.nodes


@anyio_only
async def test_handles_left_open_end_with_the_yard(registry: Any) -> None:
    async with Yard(registry=registry) as yard:
        await yard.open(driver="mem")
        await yard.open(driver="over", file={"driver": "mem"})


@anyio_only
async def test_an_error_in_the_body_comes_out_as_it_is(registry: Any) -> None:
    async def program() -> None:
        async with Yard(registry=registry) as yard:
            await yard.open(driver="mem")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await program()


@anyio_only
async def test_a_background_task_that_fails_harms_nobody(yard: Yard, caplog: Any) -> None:
    async def bad() -> None:
        raise RuntimeError("oops")

    yard.spawn(bad)
    await anyio.sleep(0.01)
    async with await yard.open(driver="mem") as image:
        await image.read(0, 1)
    assert "a background task failed" in caplog.text


@anyio_only
async def test_iothread_objects(yard: Yard) -> None:
    def options(object_id: str, **more: Any) -> Any:
        return visit(ObjectOptions, {"qom-type": "iothread", "id": object_id, **more})

    made: Any = await yard.objects.add(options("io0", **{"poll-max-ns": 5}))
    assert yard.objects.resolve("/objects/io0") is made
    assert made.properties()["poll-max-ns"].get() == 5
    made.properties()["poll-max-ns"].set(7)
    assert yard.loops.get("io0").params.poll_max_ns == 7
    assert made.thread_id > 1
    for text, bad in {
        "attempt to add duplicate property 'io0' to object (type 'container')": options("io0"),
        "Parameter 'id' expects an identifier": options("#io"),
        "poll-max-ns value must be in range [0, 9223372036854775807]": options(
            "io1", **{"poll-max-ns": -1}
        ),
        "bad thread-pool-min/thread-pool-max values": options("io1", **{"thread-pool-max": 0}),
    }.items():
        with pytest.raises(BlockyardError) as caught:
            await yard.objects.add(bad)
        assert str(caught.value) == text
    node = (await yard.open(driver="mem")).node
    await yard.graph.move(node, yard.loops.get("io0"))
    with pytest.raises(BlockyardError, match="^object 'io0' is in use, can not be deleted$"):
        await yard.objects.delete("io0")
    await yard.graph.move(node, yard.loops.main)
    await yard.objects.delete("io0")
    with pytest.raises(BlockyardError, match="^object 'io0' not found$"):
        await yard.objects.delete("io0")


@anyio_only
async def test_an_object_that_does_not_start_leaves_nothing(yard: Yard) -> None:
    class Bad(Object):
        type = ObjectType(name="bad", options=None, implementation="")

        async def start(self) -> None:
            raise BlockyardError("no")

        async def stop(self) -> None:
            raise AssertionError("never started")

    yard.registry.add("objects", "bad", ObjectType(name="bad", options=None, implementation=Bad))
    with pytest.raises(BlockyardError, match="^no$"):
        await yard.objects.add(visit(ObjectOptions, {"qom-type": "bad", "id": "x"}))
    assert not list(yard.objects)


# -- without an event loop


def test_the_blocking_form_reads_from_several_threads(registry: Any) -> None:
    with BlockingYard(registry=registry) as yard, yard.open(driver="mem", size=4096) as image:
        image.write(0, bytes(range(256)) * 16)
        wrong: list[int] = []

        def read(start: int) -> None:
            offsets = range(start, 4096, 64)
            wrong.extend(o for o in offsets if image.read(o, 1) != bytes([o % 256]))

        threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        buffer = bytearray(4)
        image.read_into(2, buffer)
        assert buffer == b"\2\3\4\5"
        image.write_zeroes(0, 4)
        image.discard(512, 512)
        image.flush()
        image.resize(512)
        assert (image.length, image.read(0, 5)) == (512, b"\0\0\0\0\4")
        assert image.block_status(0, 512).bytes == 512
        assert image.stats().op["write"].done >= 1
        with pytest.raises(ImageIOError):
            image.read(512, 1)
        image.close()
        image.close()


def test_yards_on_several_event_loops_do_not_mix(registry: Any) -> None:
    failed: list[BaseException] = []

    def use(number: int, backend: str) -> None:
        async def main() -> None:
            async with Yard(registry=registry) as yard, await yard.open(driver="mem") as image:
                for turn in range(100):
                    await image.write(turn, bytes([number]))
                    assert await image.read(turn, 1) == bytes([number])

        try:
            anyio.run(main, backend=backend)
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=use, args=(n, backend))
        for n, backend in enumerate(["asyncio", "trio", "asyncio", "trio"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed


def test_a_program_that_forgets_everything_still_ends(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import anyio\n"
        "from blockyard import Yard\n"
        "async def main():\n"
        "    yard = Yard()\n"
        "    await yard.__aenter__()\n"
        "    yard.loops.main\n"
        "    import os; os._exit(0)\n"
        "anyio.run(main)\n"
    )
    done = subprocess.run([sys.executable, str(program)], timeout=30, check=False)

    assert done.returncode == 0


def test_descriptors_and_threads_are_given_back(registry: Any) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    def nothing_more() -> bool:  # what earlier tests left may go meanwhile
        return all(now <= then for now, then in zip(held(), before, strict=True))

    def once() -> None:
        with BlockingYard(registry=registry) as yard, yard.open(driver="mem") as image:
            image.read(0, 1)

    once()
    before = held()
    for _ in range(3):
        once()
    for _ in range(100):  # worker threads end a moment after their loop
        if nothing_more():
            break
        time.sleep(0.02)
    assert nothing_more(), (before, held())


@anyio_only
async def test_nothing_is_compressed_by_drivers_that_cannot(yard: Yard) -> None:
    async with await yard.open(driver="mem") as image:
        with pytest.raises(ImageIOError) as caught:
            await image.write(0, b"a" * 512, compressed=True)
        assert caught.value.errno == errno.ENOTSUP
        assert await image.read(0, 512) == bytes(512)


@anyio_only
async def test_a_request_that_is_not_waited_for_tells_of_its_end(yard: Yard) -> None:
    async with await yard.open(driver="mem") as image:
        access = image.root.access
        results: list[int] = []
        done = anyio.Event()

        def ended(result: int) -> None:
            results.append(result)
            if len(results) == 2:
                done.set()

        access.start(ended, Op.WRITE, 0, 5, access.pin(b"hello", writable=False))
        access.start(ended, Op.READ, image.length, 512, access.pin(bytearray(512), writable=True))
        await done.wait()
        assert sorted(results) == [-errno.EIO, 0]
        assert await image.read(0, 5) == b"hello"


@anyio_only
async def test_counts_stay_what_they_were(yard: Yard) -> None:
    async with await yard.open(driver="mem", size=65536) as image:
        await image.write(0, b"x" * 512)
        counts = yard.graph.carrier.statistics(image.node).op[Op.WRITE]
        await image.write(0, b"x" * 512)
        later = [yard.graph.carrier.statistics(image.node) for _ in range(100)]
        assert (counts.done, counts.bytes) == (1, 512)
        assert {(each.op[Op.WRITE].done, each.op[Op.WRITE].bytes) for each in later} == {(2, 1024)}
