# SPDX-License-Identifier: Apache-2.0
"""The control half of ``raw``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import attrs

from blockyard.errors import BlockyardError, ImageIOError, InvalidOption, Unsupported, from_errno
from blockyard.imagework import Measure
from blockyard.node import Child, ChildSpec, Driver, Node, Opened
from blockyard.permission import ALL, Perm, Role, default_permissions
from blockyard.request import Limits, Preallocation
from blockyard_formats_raw.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RawDriver", "other_format"]

_SECTOR = 512
_MAX_SIZE = (1 << 63) - 1
_PREALLOCATION = {
    "off": Preallocation.OFF,
    "metadata": Preallocation.METADATA,
    "falloc": Preallocation.FALLOC,
    "full": Preallocation.FULL,
}


def other_format(sector: bytes) -> str | None:
    """The format whose header an image that begins with ``sector`` would be taken for.

    :raises ValueError: if it is shorter than 512 bytes.
    """
    if len(sector) < _SECTOR:
        raise ValueError("A sector has 512 bytes")
    name = lib.by_raw_other_format(sector)
    return None if name == ffi.NULL else str(ffi.string(name), "ascii")


@attrs.frozen(kw_only=True)
class _Part:
    """Which part of the file is the image."""

    offset: int
    #: None: whatever is behind the offset.
    size: int | None

    def check(self, file_length: int) -> None:
        """Refuse what does not lie in the file.

        :raises InvalidOption: with QEMU's text.
        """
        for name, value in (("offset", self.offset), ("size", self.size or 0)):
            if not 0 <= value <= _MAX_SIZE:
                raise InvalidOption(f"Value '{value}' is out of range for parameter '{name}'")
        if self.offset > file_length:
            raise InvalidOption(
                f"Offset ({self.offset}) cannot be greater than "
                f"size of the containing file ({file_length})"
            )
        if self.size is not None and file_length - self.offset < self.size:
            raise InvalidOption(
                f"The sum of offset ({self.offset}) and size ({self.size}) has to be smaller or "
                f"equal to the  actual size of the containing file ({file_length})"
            )
        if self.size is not None and self.size % _SECTOR:
            raise InvalidOption(f"Specified size is not multiple of {_SECTOR}")

    def length(self, file_length: int) -> int:
        """The image's length in a file of that length."""
        return file_length - self.offset if self.size is None else self.size


class RawDriver(Driver):
    """The image is the file, or a part of it.

    Whoever opens an image as raw because no format was recognised sets
    :attr:`guarded` before ``open``: writes that would give the first sector the look
    of another format fail with EPERM then (DESIGN, "Rules of robustness", 5).
    """

    def __init__(self, options: Any, node: Any) -> None:
        super().__init__(options, node)
        #: Whether the format was guessed; ``probed`` on the options says so too.
        self.guarded = bool(getattr(options, "probed", False))
        self._state = ffi.NULL
        self._part = _Part(offset=options.offset or 0, size=options.size)
        self._next = self._part

    @property
    def file(self) -> Node:
        """The node that holds the image."""
        return self.node.children["file"].node

    # -- life

    async def open(self) -> Opened:
        """Check that the part that is wanted lies in the file.

        :raises InvalidOption: if it does not.
        """
        length = self.file.length
        self._part.check(length)
        self._state = lib.by_raw_create(self._settings(self._part))
        if self._state == ffi.NULL:
            raise MemoryError
        return Opened(
            ops=lib.by_raw_ops(),
            state=int(ffi.cast("uintptr_t", self._state)),
            length=self._part.length(length),
            limits=self._limits(),
        )

    async def close(self) -> None:
        """Free the state."""
        lib.by_raw_free(self._state)
        self._state = ffi.NULL

    def _settings(self, part: _Part) -> Any:
        return ffi.new(
            "struct by_raw_settings *",
            {
                "offset": part.offset,
                "size": part.size or 0,
                "fixed": part.size is not None,
                "guarded": self.guarded,
            },
        )

    def _limits(self) -> Limits:
        # The file's node splits and aligns; what its users should know is repeated here.
        below = self.file.limits
        return Limits(
            request_alignment=_SECTOR if self.guarded else 1,
            memory_alignment=below.memory_alignment,
            optimal_transfer=below.optimal_transfer,
            discard_alignment=below.discard_alignment,
        )

    # -- permissions

    def child_role(self, spec: ChildSpec) -> Role:
        """Of the whole file a filter, of a part of it a format."""
        if self._part.offset or self._part.size is not None:
            return Role.DATA | Role.PRIMARY
        return Role.FILTERED | Role.PRIMARY

    def child_permissions(self, child: Child, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """As for any format, but without writing or resizing that nobody asked for."""
        node = self.node
        wanted, offered = default_permissions(
            child.role, perm, shared, writable=node.writable, inactive=not node.active
        )
        changes = Perm.WRITE | Perm.RESIZE
        return (wanted & ~changes) | (perm & changes), offered

    # -- reopen and resize

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        """Offset and size can change.

        :raises InvalidOption: if the new part does not lie in the file.
        """
        part = _Part(offset=options.offset or 0, size=options.size)
        part.check(self.file.length)
        self._next = part

    def reopen_commit(self) -> None:
        """Show the new part."""
        self._part = self._next
        lib.by_raw_change(self._state, self._settings(self._part))
        length = max(self._part.length(self.file.length), 0)
        self.node.graph.carrier.set_length(self.node, length)

    async def reopen_abort(self) -> None:
        """Keep the old one."""
        self._next = self._part

    def truncate_error(self, length: int, prealloc: str, error: BlockyardError) -> BlockyardError:
        """The file's own words: the request was its."""
        below = self.node.children["file"].node.driver
        return below.truncate_error(length, prealloc, error)

    def child_resized(self, child: Child) -> int | None:
        """What is left of the file behind the offset, unless a size was given."""
        if self._part.size is not None:
            return None
        return max(self._part.length(child.node.length), 0)

    async def check_resize(self, length: int) -> None:
        """A size that was given stays, and offset and length fit into 63 bits.

        :raises Unsupported: or InvalidOption, with QEMU's text.
        """
        if self._part.size is not None:
            raise Unsupported("Cannot resize fixed-size raw disks")
        if length > _MAX_SIZE - self._part.offset:
            raise InvalidOption("Disk size too large for the chosen offset")
        await self.file.driver.check_resize(length + self._part.offset)

    # -- images

    @classmethod
    async def measure(cls, options: Mapping[str, Any], source: Node | None) -> Measure:
        """As large as the disk, allocated or not."""
        size = source.length if source is not None else int(options.get("size", 0))
        whole = -(-size // _SECTOR) * _SECTOR
        return Measure(required=whole, fully_allocated=whole)

    @classmethod
    async def create(cls, options: Any, yard: Any) -> None:
        """Give the file its length.

        :raises BlockyardError: if the node is not there, is used, or cannot be resized.
        """
        graph = yard.graph
        if isinstance(options.file, str):
            await _create_in(graph, graph.lookup_child(options.file), options)
            return
        node = await graph.add(options.file, monitor_owned=False)
        await _create_in(graph, node, options)


async def _create_in(graph: Any, node: Node, options: Any) -> None:
    prealloc = _PREALLOCATION[options.preallocation or "off"]
    root = await graph.attach_root(node, Perm.WRITE | Perm.RESIZE, ALL & ~Perm.RESIZE)
    try:
        await node.driver.check_resize(options.size)
        await root.access.truncate(0)
        await root.access.truncate(options.size, prealloc=prealloc)
    except ImageIOError as error:
        raise _creation_error(node, options, error) from error
    finally:
        await graph.detach_root(root)


def _creation_error(node: Node, options: Any, error: ImageIOError) -> BlockyardError:
    explain = getattr(node.driver, "truncate_error", None)
    if explain is not None:
        return explain(options.size, str(options.preallocation or "off"), error)  # type: ignore[no-any-return]
    return from_errno(error.errno or errno.EIO, "Could not resize file")
