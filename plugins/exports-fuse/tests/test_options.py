# SPDX-License-Identifier: Apache-2.0
"""What block-export-add refuses, in the words of a real daemon."""

import errno
import os
import shutil

import pytest

from blockyard.errors import BlockyardError
from blockyard_exports_fuse.native import ffi, lib


@pytest.fixture
def commands(tmp_path):
    """Commands that make the nodes ``disk`` and ``ro``."""
    image = tmp_path / "disk.img"
    image.write_bytes(b"a" * 65536)
    node = {"driver": "file", "filename": str(image)}
    return [
        ("blockdev-add", {**node, "node-name": "disk"}),
        ("blockdev-add", {**node, "node-name": "ro", "read-only": True}),
        ("object-add", {"qom-type": "iothread", "id": "t0"}),
    ]


def add(mountpoint, **options):
    named = {key.replace("_", "-"): value for key, value in options.items()}
    arguments = {"type": "fuse", "id": "e", "node-name": "disk", "mountpoint": str(mountpoint)}
    return ("block-export-add", {**arguments, **named})


def test_mountpoints_that_are_none(same, commands, tmp_path):
    named = add(tmp_path)
    del named[1]["mountpoint"]
    same([
        *commands,
        named,
        add(tmp_path),
        add(tmp_path / "nothing"),
        add(tmp_path / "disk.img" / "below"),
        add("/dev/null"),
        add(""),
        add("/" + "x" * 300),
    ])  # fmt: skip


def test_options_that_are_none(same, commands, tmp_path):
    path = tmp_path / "disk.img"
    same([
        *commands,
        add(path, allow_other="all"),
        add(path, allow_other=True),
        add(path, growable="yes"),
        add(path, name="x"),
        add(path, node_name="nothing"),
        add(path, node_name="ro", writable=True),
        add(path, iothread="nothing"),
        add(path, allow_inactive=True),
        add(path, id="bad id"),
    ])  # fmt: skip


def test_a_list_of_iothreads(ours, commands, tmp_path):
    """As QEMU 11.1 has it, which is not the one that is installed everywhere."""
    ours.answers(commands)
    path = tmp_path / "disk.img"
    assert ours.answers([
        add(path, iothread=[]),
        add(path, iothread=["t0", "t1"]),
        add(path, iothread=["t0"], fixed_iothread=True),
    ]) == [
        "The set of I/O threads must not be empty",
        'iothread "t1" not found',
        "Cannot use fixed-iothread for a multi-threaded export",
    ]  # fmt: skip


def test_what_is_mounted_twice(files):
    files.add_disk(b"a" * 4096)
    path = files.export()
    link = files.folder / "link"
    link.symlink_to(path)
    other = f"{path.parent}/../{path.parent.name}/{path.name}"
    for again in (path, link, other):
        with pytest.raises(BlockyardError) as caught:
            files.add(again, name="again")
        assert str(caught.value) == f"There already is a FUSE export on '{again}'"
    assert path.read_bytes() == b"a" * 4096


def test_permissions_of_a_node_with_an_nbd_export(may_mount, same, commands, tmp_path):
    """Whoever may change the length excludes NBD's clients, who do not learn of it."""
    path = tmp_path / "mnt"
    path.write_bytes(b"")
    address = {"type": "unix", "data": {"path": str(tmp_path / "nbd")}}
    nbd = {"type": "nbd", "id": "n", "node-name": "disk"}
    same([
        *commands,
        ("nbd-server-start", {"addr": address}),
        ("block-export-add", nbd),
        add(path, writable=True),
        add(path, growable=True),
        add(path, writable=True, growable=True),
        ("block_resize", {"node-name": "disk", "size": 131072}),
        ("block-export-del", {"id": "n"}),
    ])  # fmt: skip


def test_a_mount_that_fails_says_why(files, monkeypatch):
    files.add_disk(b"a" * 4096)
    path = files.place()
    monkeypatch.setattr("blockyard_exports_fuse.mount._DEVICE", "/nowhere/fuse")
    with pytest.raises(BlockyardError) as caught:
        files.add(path)
    assert str(caught.value) == (
        "Failed to mount FUSE session to export: No such file or directory"
    )
    monkeypatch.undo()
    files.add(path)


def test_a_start_that_fails_late_leaves_nothing_mounted(files, monkeypatch):
    files.add_disk(b"a" * 4096)
    path = files.place()
    monkeypatch.setattr("blockyard_exports_fuse.export.lib", Failing())
    with pytest.raises(MemoryError):
        files.add(path)
    monkeypatch.undo()
    assert not files.mounted(path)
    files.add(path)
    assert path.read_bytes() == b"a" * 4096


class Failing:
    """A native half without memory."""

    def by_fuse_create(self, *args):
        return ffi.NULL


class Unprivileged:
    """A native half that may not mount."""

    def __init__(self, real):
        self.real = real

    def by_fuse_mount(self, *args):
        return -errno.EPERM

    def by_fuse_unmount(self, *args):
        return -errno.EPERM

    def __getattr__(self, name):
        return getattr(self.real, name)


@pytest.fixture
def unprivileged(files, monkeypatch):
    if shutil.which("fusermount3") is None:
        pytest.skip("fusermount3 is not installed")
    monkeypatch.setattr("blockyard_exports_fuse.mount.lib", Unprivileged(lib))
    files.add_disk(b"a" * 65536)
    return files


@pytest.mark.parametrize("allow_other", ["on", "off", "auto"])
def test_who_may_not_mount_asks_the_helper(unprivileged, allow_other):
    files = unprivileged
    path = files.export(writable=True, allow_other=allow_other)
    [line] = files.mounted(path)
    assert " - fuse.blockyard blockyard " in line
    assert ("allow_other" in line) == (allow_other != "off")
    assert {"nosuid", "nodev"} <= set(line.split(" ")[5].split(","))
    with path.open("r+b", buffering=0) as file:
        file.write(b"b" * 4096)
    fd = os.open(path, os.O_RDONLY)  # which does not keep it
    assert path.read_bytes() == b"b" * 4096 + b"a" * 61440
    files.delete()
    assert not files.mounted(path)
    assert files.attempt(os.pread, fd, 1, 0) == "ENOTCONN"
    os.close(fd)


def test_the_helper_mounts_read_only(unprivileged):
    path = unprivileged.export()
    assert unprivileged.mounted(path)[0].split(" ")[5].split(",")[0] == "ro"
    assert path.read_bytes() == b"a" * 65536


def test_a_helper_that_refuses_is_quoted(unprivileged, monkeypatch, tmp_path):
    helper = tmp_path / "fusermount3"
    helper.write_text("#!/bin/sh\necho 'fusermount3: no such luck' >&2\nexit 1\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = unprivileged.place()
    with pytest.raises(BlockyardError) as caught:
        unprivileged.add(path)
    text = "Failed to mount FUSE session to export: fusermount3: no such luck"
    assert str(caught.value) == text


def test_a_helper_that_is_missing_is_named(unprivileged, monkeypatch):
    monkeypatch.setattr("blockyard_exports_fuse.mount._HELPER", "fusermount-that-is-not-there")
    path = unprivileged.place()
    with pytest.raises(BlockyardError, match="Failed to mount FUSE session to export: .*"):
        unprivileged.add(path)
    assert not unprivileged.mounted(path)
