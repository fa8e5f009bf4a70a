# SPDX-License-Identifier: Apache-2.0
"""Blockyard and a real QEMU keep out of each other's way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from blockyard.errors import PermissionConflict
from blockyard.permission import ALL, Perm
from blockyard.schema import visit
from blockyard.schema.block import BlockdevOptions
from blockyard_drivers_file.native import lib


def options(**members: Any) -> Any:
    return visit(BlockdevOptions, {name.replace("_", "-"): v for name, v in members.items()})


def locked_bytes(path: Path) -> set[int]:
    """The bytes that anybody has locked."""
    fd = os.open(path, os.O_RDWR)
    try:
        return {n for n in (*range(100, 104), *range(200, 204)) if lib.by_file_lock_test(fd, n)}
    finally:
        os.close(fd)


def test_qemu_is_refused_what_we_do_not_share(image: Path, in_yard: Any, qemu_io: Any) -> None:
    async def hold(yard: Any) -> None:
        node = await yard.graph.add(options(driver="file", node_name="f", filename=str(image)))
        await yard.graph.attach_root(node, Perm.WRITE, ALL & ~Perm.WRITE)

        done = qemu_io(image, "write 0 512")

        assert done.returncode
        assert 'Failed to get "write" lock' in done.stderr
        assert f"Is another process using the image [{image}]?" in done.stderr

    in_yard(hold)
    assert qemu_io(image, "write 0 512").returncode == 0


def test_qemu_may_do_what_we_share(image: Path, in_yard: Any, qemu_io: Any) -> None:
    async def hold(yard: Any) -> None:
        node = await yard.graph.add(options(driver="file", node_name="f", filename=str(image)))
        await yard.graph.attach_root(node, Perm.CONSISTENT_READ, ALL)

        assert qemu_io(image, "write -P 7 0 512").returncode == 0

    in_yard(hold)


def test_qemu_img_cannot_resize_what_we_use(image: Path, in_yard: Any, qemu_img: Any) -> None:
    async def hold(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(image)):
            done = qemu_img("resize", "-f", "raw", image, "2M")

            assert done.returncode
            assert "lock" in done.stderr

    in_yard(hold)
    assert image.stat().st_size == 1 << 20


def test_we_are_refused_what_qemu_does_not_share(image: Path, in_yard: Any, daemon: Any) -> None:
    assert (
        daemon(
            "blockdev-add",
            driver="raw",
            node_name="q",
            file={"driver": "file", "filename": str(image)},
        )
        == {}
    )
    assert (
        daemon("nbd-server-start", addr={"type": "unix", "data": {"path": str(image) + ".sock"}})
        == {}
    )
    assert daemon("block-export-add", type="nbd", id="e", node_name="q", writable=True) == {}

    async def attempt(yard: Any) -> None:
        await yard.open(driver="file", filename=str(image))

    with pytest.raises(PermissionConflict) as caught:
        in_yard(attempt)
    assert str(caught.value) == 'Failed to get "resize" lock'
    assert caught.value.__notes__ == [f"Is another process using the image [{image}]?"]

    daemon.close()
    in_yard(attempt)


def test_both_say_the_same_of_a_third_user(image: Path, in_yard: Any, daemon: Any) -> None:
    holder = os.open(image, os.O_RDWR)
    for byte in (100, 101, 201, 203):
        assert lib.by_file_lock(holder, byte) == 0

    async def attempt(yard: Any) -> None:
        await yard.open(driver="file", filename=str(image))

    try:
        with pytest.raises(PermissionConflict, match='Failed to get "write" lock'):
            in_yard(attempt)
        daemon("blockdev-add", driver="file", node_name="q", filename=str(image))
        daemon("nbd-server-start", addr={"type": "unix", "data": {"path": f"{image}.sock"}})
        theirs = daemon("block-export-add", type="nbd", id="e", node_name="q", writable=True)
        assert theirs == 'Failed to get "write" lock'
    finally:
        os.close(holder)


def test_a_refused_user_leaves_the_locks_as_they_were(image: Path, in_yard: Any) -> None:
    holder = os.open(image, os.O_RDWR)
    lib.by_file_lock(holder, 201)

    async def attempt(yard: Any) -> None:
        node = await yard.graph.add(options(driver="file", node_name="f", filename=str(image)))
        root = await yard.graph.attach_root(node, Perm.CONSISTENT_READ, ALL)
        before = locked_bytes(image)
        with pytest.raises(PermissionConflict):
            await yard.graph.set_root_permissions(root, Perm.WRITE, ALL & ~Perm.RESIZE)
        assert locked_bytes(image) == before == {100, 201}
        assert root.perm == Perm.CONSISTENT_READ

    try:
        in_yard(attempt)
    finally:
        os.close(holder)
    assert locked_bytes(image) == set()


def test_locks_are_those_of_the_permissions(image: Path, in_yard: Any) -> None:
    async def check(yard: Any) -> None:
        node = await yard.graph.add(options(driver="file", node_name="f", filename=str(image)))
        assert locked_bytes(image) == set()
        root = await yard.graph.attach_root(
            node, Perm.CONSISTENT_READ | Perm.WRITE, ALL & ~Perm.RESIZE
        )
        assert locked_bytes(image) == {100, 101, 203}
        await yard.graph.set_root_permissions(root, Perm.CONSISTENT_READ, ALL)
        assert locked_bytes(image) == {100}
        await yard.graph.detach_root(root)
        assert locked_bytes(image) == set()

    in_yard(check)


def test_nothing_is_locked_with_locking_off(image: Path, in_yard: Any) -> None:
    async def check(yard: Any) -> None:
        async with await yard.open(driver="file", filename=str(image), locking="off"):
            assert locked_bytes(image) == set()

    in_yard(check)


def test_a_reopen_does_not_see_its_own_locks(image: Path, in_yard: Any, qemu_io: Any) -> None:
    both = Perm.CONSISTENT_READ | Perm.WRITE

    async def check(yard: Any) -> None:
        common = {"driver": "file", "node_name": "f", "filename": str(image)}
        node = await yard.graph.add(options(**common))
        root = await yard.graph.attach_root(node, both, ALL & ~Perm.WRITE)
        held = locked_bytes(image)
        await yard.graph.reopen([options(**common, cache={"direct": True})])
        assert locked_bytes(image) == held
        assert node.limits.request_alignment >= 512
        await root.access.write(3, b"odd")
        assert await root.access.read(2, 5) == image.read_bytes()[2:7]
        assert 'Failed to get "write" lock' in qemu_io(image, "write 0 512").stderr
        await yard.graph.set_root_permissions(root, Perm.CONSISTENT_READ, ALL)
        await yard.graph.reopen([options(**common, read_only=True)])
        assert locked_bytes(image) == {100}
        assert node.limits.request_alignment == 1

    in_yard(check)
    assert image.read_bytes()[3:6] == b"odd"


def test_a_failed_reopen_changes_nothing(image: Path, in_yard: Any) -> None:
    async def check(yard: Any) -> None:
        common = {"driver": "file", "node_name": "f", "filename": str(image)}
        node = await yard.graph.add(options(**common))
        root = await yard.graph.attach_root(node, Perm.WRITE, ALL & ~Perm.WRITE)
        held = locked_bytes(image)
        with pytest.raises(PermissionConflict):
            await yard.graph.reopen([options(**common, read_only=True, cache={"direct": True})])
        assert locked_bytes(image) == held
        assert (node.read_only, node.cache_direct) == (False, False)
        await root.access.write(1, b"x")

    in_yard(check)


def test_a_reopen_does_not_move_to_another_file(image: Path, in_yard: Any) -> None:
    async def check(yard: Any) -> None:
        common = {"driver": "file", "node_name": "f", "filename": str(image)}
        await yard.graph.add(options(**common))
        image.rename(image.with_suffix(".old"))
        image.write_bytes(bytes(512))
        await yard.graph.reopen([options(**common, cache={"direct": True})])

    with pytest.raises(Exception, match="another file"):
        in_yard(check)


def test_auto_read_only_opens_for_writing_when_somebody_writes(image: Path, in_yard: Any) -> None:
    def mode(driver: Any) -> int:
        flags = Path(f"/proc/self/fdinfo/{driver._fd}").read_text()
        return int(flags.split("flags:")[1].split()[0], 8) & os.O_ACCMODE

    async def check(yard: Any) -> None:
        node = await yard.graph.add(
            options(driver="file", node_name="f", filename=str(image), auto_read_only=True)
        )
        assert mode(node.driver) == os.O_RDONLY
        root = await yard.graph.attach_root(node, Perm.CONSISTENT_READ, ALL)
        fd = node.driver._fd
        await yard.graph.set_root_permissions(root, Perm.WRITE, ALL)
        assert mode(node.driver) == os.O_RDWR
        await root.access.write(0, b"written")
        await yard.graph.set_root_permissions(root, Perm.CONSISTENT_READ, ALL)
        assert mode(node.driver) == os.O_RDONLY
        assert node.driver._fd == fd

    in_yard(check)
    assert image.read_bytes()[:7] == b"written"


def test_an_inactive_node_holds_no_locks(image: Path, in_yard: Any) -> None:
    async def check(yard: Any) -> None:
        node = await yard.graph.add(options(driver="file", node_name="f", filename=str(image)))
        await yard.graph.attach_root(node, Perm.WRITE, ALL & ~Perm.WRITE, allow_inactive=True)
        held = locked_bytes(image)
        await yard.graph.set_active(node, False)
        assert locked_bytes(image) == set()
        await yard.graph.set_active(node, True)
        assert locked_bytes(image) == held == {101, 201}

    in_yard(check)


def test_the_file_is_changed_under_requests(image: Path, in_yard: Any) -> None:
    """Requests under way do not notice that their descriptor is another file's now."""
    data = image.read_bytes()

    async def read(disk: Any, stop: anyio.Event) -> None:
        number = 0
        while not stop.is_set():
            offset = number * 4096 % len(data)
            assert await disk.read(offset, 4096) == data[offset : offset + 4096]
            number += 1

    async def check(yard: Any) -> None:
        for way in ({}, {"aio": "threads"}, {"cache": {"direct": True}}):
            node = await yard.graph.add(
                options(
                    driver="file", node_name="f", filename=str(image), auto_read_only=True, **way
                )
            )
            root = await yard.graph.attach_root(node, Perm.CONSISTENT_READ, ALL)
            stop = anyio.Event()
            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(read, root.access, stop)
                for _ in range(20):
                    await yard.graph.set_root_permissions(root, Perm.CONSISTENT_READ, ALL)
                    await yard.graph.set_root_permissions(root, Perm.WRITE, ALL)
                    await root.access.write(0, data[:512])
                stop.set()
            await yard.graph.detach_root(root)
            await yard.graph.delete("f")

    in_yard(check)
    assert image.read_bytes() == data


def test_activation_forgets_cached_pages(image: Path, in_yard: Any) -> None:
    async def check(yard: Any) -> None:
        node = await yard.graph.add(
            options(driver="file", node_name="f", filename=str(image), x_check_cache_dropped=True)
        )
        root = await yard.graph.attach_root(node, Perm.CONSISTENT_READ, ALL, allow_inactive=True)
        await root.access.read(0, 65536)
        os.sync()
        await yard.graph.set_active(node, False)
        await yard.graph.set_active(node, True)
        assert lib.by_file_is_cached(node.driver._fd, image.stat().st_size) == 0

    in_yard(check)
