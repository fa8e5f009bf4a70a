# SPDX-License-Identifier: Apache-2.0
"""An open image: its native half, and what Python knows of its header.

The native half's functions wait for the disk, so each runs on a thread; they are
few, so that a disk that hangs takes no threads away from others.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs

from blockyard.errors import BlockyardError, ImageIOError, from_errno
from blockyard.native import ffi as core_ffi
from blockyard_formats_qcow2 import extension
from blockyard_formats_qcow2.header import Autoclear
from blockyard_formats_qcow2.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockyard.node import Node
    from blockyard_formats_qcow2.extension import Extensions
    from blockyard_formats_qcow2.header import Header
    from blockyard_formats_qcow2.options import Settings
    from blockyard_formats_qcow2.reading import Found

__all__ = ["OpenImage", "Why", "address", "addresses", "aside", "failed", "native_settings"]

_T = TypeVar("_T")
_WHY_BYTES = 256
#: Threads that one event loop has for images at a time.
_THREADS = 16
_limiter: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar(
    "blockyard_formats_qcow2.limiter"
)


async def aside(function: Callable[..., _T], *args: Any) -> _T:
    """Run ``function`` on a thread that may wait."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)


def address(node: Node | None) -> int:
    """Where a node's native half is; 0 without one."""
    if node is None or node.native is None:
        return 0
    return int(core_ffi.cast("uintptr_t", node.native))


class Why:
    """Room for the sentence that a native function leaves when it fails."""

    def __init__(self) -> None:
        self.native = ffi.new("char[]", _WHY_BYTES)

    def error(self, result: int, context: str = "") -> ImageIOError:
        """The error for a negative result: the sentence, or ``context`` and the errno's text."""
        error = from_errno(result, context)
        if text := os.fsdecode(ffi.string(self.native)):
            error.args = (text,)
        return error


def native_settings(found: Found, *, read_only: bool, check: bool = False) -> Any:
    """``struct by_qcow2_settings`` of a header and the options' settings."""
    header, settings = found.header, found.settings
    assert settings is not None
    bitmaps = found.extensions.bitmaps
    crypto = found.extensions.crypto or (0, 0)
    return ffi.new(
        "struct by_qcow2_settings *",
        {
            **_of_header(header),
            "bitmaps_offset": bitmaps.directory_offset if bitmaps else 0,
            "bitmaps_bytes": bitmaps.directory_size if bitmaps else 0,
            "crypto_offset": crypto[0],
            "crypto_bytes": crypto[1],
            **_of_options(settings),
            "read_only": read_only,
            "check": check,
        },
    )


def _of_header(header: Header) -> dict[str, Any]:
    return {
        "version": header.version,
        "cluster_bits": header.cluster_bits,
        "refcount_order": header.refcount_order,
        "compression": header.compression,
        # A disk has whole sectors.
        "size": header.size // 512 * 512,
        "l1_offset": header.l1_offset,
        "l1_size": header.l1_size,
        "reftable_clusters": header.reftable_clusters,
        "reftable_offset": header.reftable_offset,
        "snapshots_offset": header.snapshots_offset,
        "snapshots": header.snapshots,
        "incompatible": header.incompatible,
        "compatible": header.compatible,
        "autoclear": header.autoclear,
        "crypt_method": header.crypt_method,
        "data_file": header.has_data_file,
        "data_file_raw": header.data_file_raw,
        "extended_l2": header.l2_entry_bytes == 16,
    }


def _of_options(settings: Settings) -> dict[str, Any]:
    values = attrs.asdict(settings)
    del values["clean_interval"]
    return values


@attrs.define(eq=False)
class OpenImage:
    """The native image and its header; the driver's, while it is open.

    Methods raise :class:`~blockyard.errors.ImageIOError` when the image cannot be read
    or written.
    """

    #: ``struct by_qcow2 *``.
    native: Any
    #: As last read or written; fields that the native half changes are in :meth:`state`.
    header: Header
    extensions: Extensions
    read_only: bool

    @classmethod
    async def open(
        cls,
        children: tuple[int, int, int],
        found: Found,
        *,
        read_only: bool,
        tag: int = 0,
        check: bool = False,
    ) -> OpenImage:
        """Over these children (see :func:`addresses`); events carry ``tag``.

        :raises BlockyardError: with QEMU's text.
        """
        settings = native_settings(found, read_only=read_only, check=check)
        why, error = Why(), ffi.new("int *")
        native = await aside(lib.by_qcow2_open, settings, *children, tag, error, why.native)
        if native == ffi.NULL:
            raise why.error(error[0], "Could not open the image's tables")
        return cls(native, found.header, found.extensions, read_only)

    async def close(self) -> None:
        """Free the native half; nothing uses it any more."""
        native, self.native = self.native, None
        if native is not None:
            await aside(lib.by_qcow2_free, native)

    async def call(self, function: Any, *args: Any, context: str = "") -> None:
        """Call a native function of the image that answers 0 or -errno.

        :raises ImageIOError: ``context`` and the errno's text.
        """
        result = await aside(function, self.native, *args)
        if result < 0:
            raise from_errno(result, context)

    async def explained(self, function: Any, *args: Any, context: str = "") -> None:
        """:meth:`call` for a function whose last argument takes a sentence."""
        why = Why()
        result = await aside(function, self.native, *args, why.native)
        if result < 0:
            raise why.error(result, context)

    def state(self) -> Any:
        """``struct by_qcow2_state``: what the native half knows better than the header."""
        out = ffi.new("struct by_qcow2_state *")
        lib.by_qcow2_get_state(self.native, out)
        return out

    # -- bytes of the file

    async def read(self, offset: int, length: int) -> bytes:
        """Bytes of the image's file; what lies behind its end is zeroes."""
        buffer = ffi.new("char[]", length)
        await self.call(lib.by_qcow2_read_file, offset, buffer, length)
        return bytes(ffi.buffer(buffer, length))

    async def write(self, offset: int, data: bytes, overlap: int = 0) -> None:
        """Write the image's file where it is metadata of the type ``overlap``."""
        await self.call(lib.by_qcow2_write_file, offset, data, len(data), overlap)

    async def allocate(self, length: int, overlap: int = 0) -> int:
        """Contiguous clusters for ``length`` bytes; answers their offset."""
        out = ffi.new("uint64_t *")
        await self.call(lib.by_qcow2_allocate, length, overlap, out)
        return int(out[0])

    async def release(self, offset: int, length: int, overlap: int = 0) -> None:
        """The reverse of :meth:`allocate`."""
        await self.call(lib.by_qcow2_release, offset, length, overlap)

    async def flush(self) -> None:
        """Bring everything to stable storage."""
        await self.call(lib.by_qcow2_flush)

    # -- the header

    def present_header(self) -> Header:
        """The header with what the native half has changed since."""
        state = self.state()
        return attrs.evolve(
            self.header,
            size=state.size,
            l1_offset=state.l1_offset,
            l1_size=state.l1_size,
            reftable_offset=state.reftable_offset,
            reftable_clusters=state.reftable_clusters,
            incompatible=state.incompatible,
            compatible=state.compatible,
            autoclear=state.autoclear,
        )

    async def rewrite(self, *, extensions: Extensions | None = None, **changes: Any) -> None:
        """Write the header anew, with these extensions and changed fields.

        :raises ImageIOError: ENOSPC if it does not fit into a cluster; nothing has
            changed then.
        """
        header = attrs.evolve(self.present_header(), **changes)
        extensions = extensions or self.extensions
        data = extension.build(header, extensions)
        await self.call(lib.by_qcow2_write_header, data, len(data))
        self.header, self.extensions = header, extensions

    @property
    def has_bitmaps(self) -> bool:
        """Whether the header vouches for the bitmaps that the image stores."""
        return bool(self.header.autoclear & Autoclear.BITMAPS and self.extensions.bitmaps)


def addresses(node: Node) -> tuple[int, int, int]:
    """Where the children ``file``, ``data-file`` (else ``file``) and ``backing`` are."""
    children = {name: child.node for name, child in node.children.items()}
    file = address(children.get("file"))
    data = address(children.get("data-file")) or file
    return file, data, address(children.get("backing"))


def failed(error: BlockyardError, context: str) -> BlockyardError:
    """``error`` after ``context: ``, its errno kept."""
    text = f"{context}: {error}"
    if isinstance(error, ImageIOError) and error.errno:
        return ImageIOError(text, error.errno)
    return BlockyardError(text)
