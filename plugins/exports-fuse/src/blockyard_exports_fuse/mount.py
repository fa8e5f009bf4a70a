# SPDX-License-Identifier: Apache-2.0
"""Mounting on a regular file, and undoing it; everything here may block."""

from __future__ import annotations

import errno
import logging
import os
import re
import select
import socket
import stat
import subprocess

import attrs

from blockyard.errors import BlockyardError, ImageIOError, InvalidOption, from_os_error
from blockyard_exports_fuse.native import ffi, lib

__all__ = ["Mount", "check_mountpoint", "mount"]

_log = logging.getLogger(__name__)

_DEVICE = "/dev/fuse"
_HELPER = "fusermount3"
#: Bytes of one READ at most; csrc/parse.h has the same.
_MAX_READ = 1 << 20
#: Seconds that the helper may take.
_HELPER_LIMIT = 20


@attrs.frozen(eq=False, repr=False, kw_only=True)
class Mount:
    """A file that is mounted."""

    path: str
    #: The connection to the kernel; the owner closes it.
    fd: int
    #: Whether others than the owner may be let in.
    allow_other: bool
    #: The file system's number in mount tables, ``"0:41"``; None where there is none to read.
    device: str | None

    def settle(self) -> None:
        """Let the kernel ask, once and for all, whether the file can be polled; it is served.

        A ring asks that before it reads a file for the first time, and would wait for the
        answer in a thread that may be the one to give it: when this program itself opens
        what it shows.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            _log.debug("'%s' cannot be opened: %s", self.path, error)
            return
        try:
            poll = select.poll()
            poll.register(fd)
            poll.poll(0)
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """See that it is not mounted any more, even while it is used.

        What was mounted over it, and what somebody unmounted already, stays as it is.
        """
        mounted = _devices_at(self.path)
        if self.device is not None and self.device not in mounted:
            return
        if self.device is not None and mounted[-1] != self.device:
            _log.warning("'%s' is covered by another mount and stays mounted", self.path)
            return
        result = lib.by_fuse_unmount(os.fsencode(self.path))
        if result < 0 and not _unmount_by_helper(self.path):
            _log.warning("'%s' could not be unmounted: %s", self.path, os.strerror(-result))


def check_mountpoint(mountpoint: str) -> str:
    """The absolute path of a regular file, without symbolic links.

    :raises BlockyardError: in QEMU's words if it is no such file.
    """
    try:
        mode = os.stat(mountpoint).st_mode
        path = os.path.realpath(mountpoint, strict=True)
    except OSError as error:
        raise from_os_error(error, f"Failed to stat '{mountpoint}'") from error
    except ValueError as error:  # a null byte
        raise ImageIOError(f"Failed to stat '{mountpoint}': {error}", errno.ENOENT) from error
    if not stat.S_ISREG(mode):
        raise InvalidOption(f"'{mountpoint}' is not a regular file")
    return path


def mount(path: str, *, read_only: bool, allow_other: bool | None) -> Mount:
    """Mount on a file that :func:`check_mountpoint` has found; None: others if possible.

    :raises BlockyardError: in QEMU's words, with the reason.
    """
    try:
        fd = _mount(path, read_only, allow_other is not False)
        others = allow_other is not False
    except OSError as error:
        if allow_other is not None:
            raise _failed(error) from error
        try:
            fd = _mount(path, read_only, allow_other=False)
        except OSError as again:
            raise _failed(again) from again
        others = False
    mounted = _devices_at(path)
    return Mount(path=path, fd=fd, allow_other=others, device=mounted[-1] if mounted else None)


def _failed(error: OSError) -> BlockyardError:
    reason = error.strerror if error.errno else str(error)
    return ImageIOError(f"Failed to mount FUSE session to export: {reason}", error.errno or 5)


def _mount(path: str, read_only: bool, allow_other: bool) -> int:
    options = f"default_permissions,max_read={_MAX_READ}" + ",allow_other" * allow_other
    fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        own = f"fd={fd},rootmode=100000,user_id={os.getuid()},group_id={os.getgid()},{options}"
        result = lib.by_fuse_mount(os.fsencode(path), own.encode(), read_only)
        if result == 0:
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    if result != -errno.EPERM:
        raise OSError(-result, os.strerror(-result))
    kind = ffi.string(lib.by_fuse_type()).decode().removeprefix("fuse.")
    options += f",fsname={kind},subtype={kind},nosuid,nodev,noatime" + ",ro" * read_only
    return _mount_by_helper(path, options)


def _mount_by_helper(path: str, options: str) -> int:
    """The descriptor that the program with the right to mount has sent."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(_HELPER_LIMIT)
        done = subprocess.run(
            [_HELPER, "-o", options, "--", path],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_HELPER_LIMIT,
            check=False,
        )
        theirs.close()
        fds = socket.recv_fds(ours, 1, 1)[1]
    if done.returncode or not fds:
        for fd in fds:
            os.close(fd)
        raise OSError(done.stderr.strip() or f"{_HELPER} failed")
    os.set_inheritable(fds[0], False)
    os.set_blocking(fds[0], False)
    return fds[0]


def _unmount_by_helper(path: str) -> bool:
    command = [_HELPER, "-u", "-q", "-z", "--", path]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_HELPER_LIMIT,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _devices_at(path: str) -> list[str]:
    """The numbers of the file systems that are mounted there, the visible one last."""
    try:
        with open("/proc/self/mountinfo", "rb") as table:
            lines = table.read().splitlines()
    except OSError:
        return []
    fields = (line.split(b" ") for line in lines)
    wanted = os.fsencode(path)
    return [field[2].decode() for field in fields if _unescape(field[4]) == wanted]


def _unescape(name: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), name)
