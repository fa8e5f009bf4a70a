# SPDX-License-Identifier: Apache-2.0
"""Guess the format of an image.

Only for images that a person names, and for backing files whose format is not
recorded: a node declared raw and a backing file with a recorded format are never
looked at, because a guest wrote those bytes.  A raw image has no mark, so "raw" is
what is left, and a guess.

An installed format knows its own images (:attr:`blockyard.declaration.DriverType.probe`).
The marks of well-known formats are here too, so that an image of one that is not
installed is not taken for raw.
"""

import logging
import os
import stat
from collections.abc import Callable
from typing import Any

import attrs

__all__ = ["PROBED", "Guess", "guess", "guess_bytes", "guess_format"]

_log = logging.getLogger(__name__)

#: Bytes of an image's beginning that formats look at.
PROBED = 2048
_HEAD = 4096
_TAIL = 512


@attrs.frozen
class Guess:
    """A format and the reason, as a clause: "it begins with 'QFI'"."""

    #: The driver's QMP name.
    format: str
    reason: str
    #: False for raw without anything that says so.
    certain: bool = True


#: Marks at the start, each format's own; the reason quotes them.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"QFI\xfb\0\0\0\x01", "qcow"),
    (b"QFI\xfb", "qcow2"),
    (b"QED\0", "qed"),
    (b"KDMV", "vmdk"),
    (b"COWD", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vpc"),
    (b"LUKS\xba\xbe", "luks"),
    (b"WithoutFreeSpace", "parallels"),
    (b"WithouFreSpacExt", "parallels"),
    (b"Bochs Virtual HD Image", "bochs"),
    (b"#!/bin/sh\n#V2.0 Format\n", "cloop"),
)


def _vmdk_descriptor(head: bytes, tail: bytes) -> str | None:
    """A text descriptor: comments and blank lines, then ``version=``."""
    for line in head.split(b"\n")[:64]:
        text = line.strip().lower()
        if text.startswith(b"version="):
            return "it is a VMDK descriptor in text form"
        if text and not text.startswith(b"#"):
            break
    return None


def _fixed_vhd(head: bytes, tail: bytes) -> str | None:
    return "it ends with a VHD footer, 'conectix'" if tail.startswith(b"conectix") else None


def _vdi(head: bytes, tail: bytes) -> str | None:
    return "it has VDI's signature at byte 64" if head[64:68] == b"\x7f\x10\xda\xbe" else None


def _dmg(head: bytes, tail: bytes) -> str | None:
    return "it ends with a DMG trailer, 'koly'" if tail.startswith(b"koly") else None


_CHECKS: tuple[tuple[str, Callable[[bytes, bytes], str | None]], ...] = (
    ("vdi", _vdi),
    ("vmdk", _vmdk_descriptor),
    ("vpc", _fixed_vhd),
    ("dmg", _dmg),
)


def guess_format(registry: Any, head: bytes, name: str = "") -> str:
    """The driver for an image that begins with these :data:`PROBED` bytes.

    ``registry`` is the :class:`~blockyard.plugins.Registry`.  The surest of the installed
    formats wins; if there is none, a well-known mark, which may be of a format that is
    not installed; else ``raw``.
    """
    return _surest(registry, head[:PROBED], name) or guess_bytes(head).format


def _surest(registry: Any, head: bytes, name: str) -> str | None:
    best, found = 0, None
    for driver, declaration in registry.every("formats"):
        probe = getattr(getattr(declaration, "type", declaration), "probe", None)
        try:
            score = probe(head, name) if callable(probe) and driver != "raw" else 0
        except Exception:
            _log.exception("format '%s' failed in its probe", driver)
            continue
        if score > best:
            best, found = score, driver
    return found


def guess_bytes(head: bytes, tail: bytes = b"") -> Guess:
    """The guess by well-known marks from an image's first 4096 bytes (or all) and last 512."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return Guess(name, f"it begins with {_printable(magic)}")
    for name, check in _CHECKS:
        if reason := check(head, tail):
            return Guess(name, reason)
    return Guess("raw", _raw_reason(head), certain=False)


def guess(path: str, registry: Any = None) -> Guess:
    """Probe a regular file or a block device; formats of ``registry`` are asked if there is one.

    :raises OSError: if it cannot be opened or read.
    :raises ValueError: if it is something else: a folder, a FIFO, a terminal...
    """
    # A FIFO would block for ever otherwise.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise ValueError(f"'{path}' is neither a regular file nor a block device")
        length = os.lseek(fd, 0, os.SEEK_END)
        head, tail = os.pread(fd, _HEAD, 0), os.pread(fd, _TAIL, max(0, length - _TAIL))
    finally:
        os.close(fd)
    marked = guess_bytes(head, tail)
    own = _surest(registry, head[:PROBED].ljust(PROBED, b"\0"), path) if registry else None
    if own is None or own == marked.format:
        return marked
    return Guess(own, f"{own} knows it as its own")


def _printable(magic: bytes) -> str:
    text = "".join(chr(byte) for byte in magic.rstrip(b"\0") if 32 <= byte < 127)
    return f"'{text}'"


def _raw_reason(head: bytes) -> str:
    """Why raw; what a disk's first bytes tell a person, though they prove nothing."""
    nothing = "it has no known format's mark"
    if head[512:520] == b"EFI PART":
        return f"{nothing}; there is a GPT partition table in it"
    if head[510:512] == b"\x55\xaa":
        return f"{nothing}; there is a boot sector in it"
    if head[1080:1082] == b"\x53\xef":
        return f"{nothing}; there is an ext file system in it"
    return nothing
