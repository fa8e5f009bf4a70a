# SPDX-License-Identifier: Apache-2.0
"""What a qcow2 driver does with its image besides serving requests.

Each subject has a module of its own, imported when it is asked for; this is where core
finds them.
"""

from __future__ import annotations

import abc
import os
import stat
from typing import TYPE_CHECKING, Any

import attrs

from blockyard.driver import Driver
from blockyard.errors import BlockyardError, ImageIOError, InvalidOption, from_errno
from blockyard.imagework import CheckResult, Fix, Measure
from blockyard.repairs import REPAIRS
from blockyard_formats_qcow2.header import Autoclear
from blockyard_formats_qcow2.image import aside
from blockyard_formats_qcow2.native import ffi, lib
from blockyard_formats_qcow2.options import check_encryption, resolve
from blockyard_formats_qcow2.reading import Found

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blockyard.node import Node
    from blockyard.schema.blockinfo import SnapshotInfo
    from blockyard_formats_qcow2.bitmap import ImageBitmaps
    from blockyard_formats_qcow2.header import Header
    from blockyard_formats_qcow2.image import OpenImage

__all__ = ["Qcow2Work"]

_EINVAL, _ENOTSUP = 22, 95
_MAX_BACKING_NAME = 1023


class Qcow2Work(Driver):
    """The part of the driver that is about images as a whole."""

    def __init__(self, options: Any, node: Any) -> None:
        super().__init__(options, node)
        #: Key slots are being changed, which nobody else may look at.
        self.amending = False

    @property
    @abc.abstractmethod
    def image(self) -> OpenImage:
        """What is open."""

    @property
    @abc.abstractmethod
    def stored_bitmaps(self) -> ImageBitmaps:
        """The bitmaps that the image stores."""

    @property
    @abc.abstractmethod
    def found(self) -> Found:
        """The header as it was found, and what the options come to."""

    @property
    @abc.abstractmethod
    def cipher(self) -> Any:
        """What encrypts the data; None if it is not encrypted."""

    # -- opening

    def check_data_file(self, found: Found) -> None:
        """Refuse a header that contradicts itself.

        :raises InvalidOption: with QEMU's text.
        """
        if found.header.data_file_raw and not found.header.has_data_file:
            raise InvalidOption("data-file-raw requires a data file")

    def check_data_node(self, found: Found) -> None:
        """Refuse an image whose data file nobody has named, and one for an image without.

        :raises InvalidOption: with QEMU's text.
        """
        if self.options.data_file is not None and not found.header.has_data_file:
            raise InvalidOption("'data-file' can only be set for images with an external data file")
        missing = found.header.has_data_file and "data-file" not in self.node.children
        if missing and not self.node.without_contents:
            raise InvalidOption("'data-file' is required for this image")

    async def data_file_options(self, name: str) -> dict[str, Any]:
        """The options that open the data file that an image names.

        The name is a path and nothing else: no protocol, no ``json:``.
        """
        try:
            found = await aside(os.stat, name)
        except (OSError, ValueError):
            return {"driver": "file", "filename": name}
        device = stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode)
        return {"driver": "host_device" if device else "file", "filename": name}

    def reopen_judge(self, options: Any) -> None:
        """Refuse encryption that the image does not have, and sizes that suit no cache."""
        self.settle_options(options, self.image.present_header())

    def settle_options(self, options: Any, header: Header) -> Found:
        """What new options come to, for an image that is open.

        :raises InvalidOption: with QEMU's text.
        """
        settings = resolve(options, header, unmap=self.node.discard == "unmap")
        check_encryption(options.encrypt, header)
        return Found(header=header, extensions=self.image.extensions, settings=settings)

    async def mend_dirty(self) -> None:
        """Repair an image that was not closed properly.

        :raises BlockyardError: with QEMU's text.
        """
        from blockyard_formats_qcow2 import check

        try:
            result = await check.run(self.image, Fix.LEAKS | Fix.ERRORS, REPAIRS.warning)
        except BlockyardError as error:
            number = getattr(error, "errno", None) or 5
            raise from_errno(number, "Could not repair dirty image") from error
        if result.check_errors:
            raise from_errno(5, "Could not repair dirty image")

    # -- size

    async def check_resize(self, length: int) -> None:
        """Refuse a length that the image cannot have.

        :raises InvalidOption: with QEMU's text.
        """
        if length % 512:
            raise InvalidOption("The new size must be a multiple of 512")
        names = set(self.node.bitmaps)
        if any(entry.name not in names for entry in self.stored_bitmaps.entries):
            raise InvalidOption(
                "Cannot resize qcow2 with persistent bitmaps that were not loaded into memory"
            )

    def truncate_error(self, length: int, prealloc: str, error: BlockyardError) -> BlockyardError:
        """What the native half says of it."""
        text = ffi.new("char[256]")
        lib.by_qcow2_resize_why(self.image.native, text, 256)
        why = os.fsdecode(ffi.string(text))
        if not why:
            return error
        return ImageIOError(why, getattr(error, "errno", None) or 5)

    # -- amending

    async def amend_begin(self) -> None:
        """Have the file to ourselves while key slots change.

        :raises BlockyardError: for a node that is read-only, or with QEMU's text.
        """
        if self.cipher is not None and self.node.read_only:
            raise BlockyardError("Block node is read-only")
        self.amending = self.cipher is not None
        try:
            await self.node.refresh_permissions()
        except BaseException:
            self.amending = False
            raise

    async def amend(self, options: Any, *, force: bool) -> None:
        """Change key slots, or the format's version and features."""
        from blockyard_formats_qcow2 import amend

        await amend.amend(self, options, force=force)

    async def remodel(
        self,
        values: Mapping[str, str],
        *,
        force: bool = False,
        tell: Callable[[int, int], None] | None = None,
    ) -> None:
        """Change version, features, refcounts, size or key slots."""
        from blockyard_formats_qcow2.remodel import remodel

        if any(name.startswith("encrypt.") for name in values):
            await self.amend_begin()
            try:
                await remodel(self, values, force=force, tell=tell)
            finally:
                await self.amend_end()
        else:
            await remodel(self, values, force=force, tell=tell)

    async def amend_end(self) -> None:
        """Share the file again."""
        self.amending = False
        await self.node.refresh_permissions()

    # -- snapshots

    async def snapshots(self) -> list[SnapshotInfo]:
        """The image's internal snapshots.

        :raises ImageIOError: ENOTSUP with an external data file.
        """
        if self.found.header.has_data_file:
            raise from_errno(_ENOTSUP)
        from blockyard_formats_qcow2 import snapshot

        return await snapshot.listed(self.image)

    async def snapshot_create(self, name: str, info: SnapshotInfo) -> SnapshotInfo:
        """Keep the present content."""
        from blockyard_formats_qcow2 import snapshot

        return await snapshot.create(self.image, name, info)

    async def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> SnapshotInfo:
        """Delete a snapshot."""
        from blockyard_formats_qcow2 import snapshot

        return await snapshot.delete(self.image, snapshot_id, name)

    async def snapshot_apply(self, id_or_name: str) -> None:
        """Make the content what it was."""
        from blockyard_formats_qcow2 import snapshot

        await snapshot.apply(self.image, id_or_name)
        self.node.graph.carrier.set_length(self.node, self.image.state().size)

    async def snapshot_show(self, snapshot_id: str | None, name: str | None) -> None:
        """Read from a snapshot."""
        from blockyard_formats_qcow2 import snapshot

        await snapshot.show_exactly(self.image, snapshot_id, name)

    # -- the state of a machine

    def machine_state_offset(self) -> int:
        """The first byte that a whole L1 entry behind the disk maps."""
        return int(lib.by_qcow2_machine_offset(self.image.native))

    async def load_machine_state(self, offset: int, view: Any) -> None:
        """Read the state; what was never written is zeroes."""
        memory = ffi.from_buffer("char[]", view, require_writable=True)
        call = lib.by_qcow2_machine_state
        await self.image.call(call, offset, memory, len(memory), False)

    async def save_machine_state(self, offset: int, view: Any) -> None:
        """Write the state, with an L1 table that reaches so far."""
        memory = ffi.from_buffer("char[]", view)
        call = lib.by_qcow2_machine_state
        await self.image.call(call, offset, memory, len(memory), True)

    # -- backing files

    async def make_empty(self) -> None:
        """Free everything that is allocated."""
        await self.image.explained(lib.by_qcow2_make_empty)

    async def change_backing(self, file: str | None, fmt: str | None) -> None:
        """Write another backing file's name and format into the header.

        :raises ImageIOError: EINVAL for names that do not fit.
        """
        image = self.image
        if file and image.header.autoclear & Autoclear.DATA_FILE_RAW:
            raise from_errno(_EINVAL)
        if fmt and not file:
            raise from_errno(_EINVAL)
        if file and len(os.fsencode(file)) > _MAX_BACKING_NAME:
            raise from_errno(_EINVAL)
        extensions = attrs.evolve(
            image.extensions, backing_file=file or None, backing_format=fmt or None
        )
        await image.rewrite(extensions=extensions)

    # -- checking, measuring, creating

    async def check(
        self, fix: Fix = Fix.NONE, tell: Callable[[str], None] | None = None
    ) -> CheckResult:
        """Compare refcounts with references, and mend what ``fix`` says."""
        from blockyard_formats_qcow2 import check

        return await check.run(self.image, fix, tell)

    @classmethod
    async def measure(cls, options: Mapping[str, Any], source: Node | None) -> Measure:
        """How large a new image would be."""
        from blockyard_formats_qcow2 import measure

        return await measure.measure(options, source)

    @classmethod
    async def create(cls, options: Any, yard: Any) -> None:
        """Make an image in a file that exists."""
        from blockyard_formats_qcow2 import create

        await create.create(options, yard)

    # -- bitmaps

    def can_store_bitmap(self, name: str, granularity: int) -> None:
        """Refuse a persistent bitmap that the image cannot keep."""
        self.stored_bitmaps.check_new(self.node, name, granularity)

    async def remove_persistent_bitmap(self, name: str) -> None:
        """Drop what the image stores of it."""
        await self.stored_bitmaps.remove(name)
