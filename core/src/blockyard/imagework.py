# SPDX-License-Identifier: Apache-2.0
"""What a format can do with an image besides serving requests.

:class:`ImageWork` is a part of :class:`blockyard.driver.Driver`: every driver
has these methods, and overrides those that its format is able to.  What is not
overridden is refused with QEMU's text.  The graph calls them under its writer
lock; those that say so run in a drained section of the node.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import attrs

from blockyard.errors import Unsupported, from_errno

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blockyard.node import Node
    from blockyard.schema.blockinfo import SnapshotInfo

__all__ = ["CheckResult", "Fix", "ImageWork", "Measure"]

_ENOTSUP = 95


class Fix(enum.IntFlag):
    """What :meth:`ImageWork.check` may repair."""

    NONE = 0
    LEAKS = 1
    ERRORS = 2


@attrs.frozen(kw_only=True)
class CheckResult:
    """What a check found (QAPI ImageCheck without the file's name and format)."""

    #: Failures of the check itself.
    check_errors: int = 0
    corruptions: int = 0
    leaks: int = 0
    corruptions_fixed: int = 0
    leaks_fixed: int = 0
    #: Bytes; where the image ends in its file.  None: not known.
    image_end_offset: int | None = None
    total_clusters: int = 0
    allocated_clusters: int = 0
    fragmented_clusters: int = 0
    compressed_clusters: int = 0
    #: What was found, one sentence each, in the order found; bounded by the driver.
    messages: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Measure:
    """How large a new image would be, in bytes (QAPI BlockMeasureInfo)."""

    #: With what is allocated in the source.
    required: int
    #: With every sector written.
    fully_allocated: int
    #: More, for the source's bitmaps; None where bitmaps cannot be copied.
    bitmaps: int | None = None


class ImageWork:
    """The part of a driver that is about images as a whole."""

    node: Node

    # -- opening

    async def named_children(self) -> Mapping[str, Any]:
        """Read the header: what else has to be opened, before ``open``.

        Called once for each node that is opened, when its ``file`` child is open and
        attached, and before any other child is.  The answer is what to open under
        each child's name, as blockdev-add takes it; for a child that the options
        mention (``None`` included) what the image names is not looked at.

        A backing file is not answered but noted with
        :meth:`blockyard.node.Node.record_backing`; core opens it after the children
        of the answer, unless the options say otherwise.

        A failure here fails the opening; ``close`` is not called after it.

        :raises BlockyardError: if the header is bad.
        """
        return {}

    # -- x-blockdev-amend

    async def amend_begin(self) -> None:
        """Ask for the permissions that amending needs; nothing has been written.

        A driver whose :meth:`child_permissions` depend on it sets its mark and awaits
        ``self.node.refresh_permissions()``.  It undoes what it did when that fails:
        :meth:`amend_end` is called only after a success.

        :raises PermissionConflict: if another user is in the way.
        """

    async def amend(self, options: Any, *, force: bool) -> None:
        """Change the image's options in place, from the branch of BlockdevAmendOptions.

        ``options`` is an instance of the declaration's ``amend_options``; ``force``
        allows what makes data unreadable.  Requests go on meanwhile; a driver that
        cannot have that drains itself (``self.node.graph.drained([self.node])``).

        :raises BlockyardError: if the options do not suit the image, or it fails.
        """
        raise Unsupported("Driver does not support x-blockdev-amend")

    async def amend_end(self) -> None:
        """Give up the permissions of :meth:`amend_begin`.  Cannot fail."""

    async def remodel(
        self,
        values: Mapping[str, str],
        *,
        force: bool = False,
        tell: Callable[[int, int], None] | None = None,
    ) -> None:
        """Change the image in place, from options as people give them.

        ``values`` are options of the ``amend`` of the driver's
        :class:`~blockyard.creation.Creation`; ``force`` allows what makes data
        unreadable; ``tell`` hears how far it is: done, total.  The node is drained and
        writable.  By default they become the declaration's ``amend_options``.

        :raises BlockyardError: if the options do not suit the image, or it fails.
        """
        from blockyard.schema import visit_keyval

        declaration = self.node.type
        if declaration.amend_options is None:
            raise Unsupported(
                f"Format driver '{declaration.name}' does not support option amendment"
            )
        options: Any = visit_keyval(declaration.amend_options, dict(values))
        await self.amend_begin()
        try:
            await self.amend(options, force=force)
        finally:
            await self.amend_end()

    # -- internal snapshots

    async def snapshots(self) -> list[SnapshotInfo]:
        """The image's internal snapshots, in the image's order.

        :raises ImageIOError: ENOTSUP by drivers that have none.
        """
        raise from_errno(_ENOTSUP)

    async def snapshot_create(self, name: str, info: SnapshotInfo) -> SnapshotInfo:
        """Keep the present content as a snapshot.  Drained; the node is writable.

        ``info`` has the dates and clocks; the driver answers it with the id that it
        chose.  Core has seen to it that no snapshot is called ``name``.

        :raises ImageIOError: if it fails; nothing is left of it then.
        """
        raise from_errno(_ENOTSUP)

    async def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> SnapshotInfo:
        """Delete the snapshot that has this id, this name, or both.  Drained.

        At least one is given.  Answers what was deleted.

        :raises BlockyardError: with QEMU's text if there is none, or it fails.
        """
        raise from_errno(_ENOTSUP)

    async def snapshot_apply(self, id_or_name: str) -> None:
        """Make the content what it was in a snapshot; an id is looked for first.  Drained.

        The node's length follows.

        :raises ImageIOError: ENOENT if there is none.
        """
        raise from_errno(_ENOTSUP)

    async def snapshot_show(self, snapshot_id: str | None, name: str | None) -> None:
        """Read from a snapshot from now on, as long as the node is open.  No requests yet.

        It is the one with this id, this name, or both, of which at least one is given;
        the node is open for reading, and its length stays as it is.

        :raises BlockyardError: with QEMU's text if there is none, or it fails.
        """
        raise from_errno(_ENOTSUP)

    # -- backing files

    async def change_backing(self, file: str | None, fmt: str | None) -> None:
        """Write another backing file's name and format into the header; None takes it out.

        The node's backing child stays as it is.  The graph notes the new names in the
        node afterwards.  The node is writable, and requests go on.

        :raises ImageIOError: EINVAL for names that do not fit, ENOSPC when there is no
            room for them, ENOTSUP by drivers that record none.
        """
        raise from_errno(_ENOTSUP)

    async def make_empty(self) -> None:
        """Give up all data, so that everything reads from the backing file.  Drained.

        The node is writable; its length stays.

        :raises ImageIOError: ENOTSUP by drivers that are not able to.
        """
        raise from_errno(_ENOTSUP)

    # -- checking and measuring

    async def check(
        self, fix: Fix = Fix.NONE, tell: Callable[[str], None] | None = None
    ) -> CheckResult:
        """Look for what is wrong in the image's tables, and repair what ``fix`` says.  Drained.

        ``tell`` is called with each finding, a sentence, as soon as it is found.

        :raises Unsupported: by formats without a check.
        :raises ImageIOError: if the check itself cannot go on.
        """
        raise Unsupported("This image format does not support checks")

    @classmethod
    async def measure(cls, options: Mapping[str, Any], source: Node | None) -> Measure:
        """How large a new image would be.

        ``options`` are members of the ``create_options`` as the schema spells them,
        without the node of the new image; ``source`` is what would be copied into it,
        and decides the size where the options have none.

        :raises Unsupported: by drivers that create no images.
        """
        raise Unsupported(f"Block driver '{cls.driver_name()}' does not support size measurement")

    # -- taking away

    @classmethod
    async def remove(cls, options: Mapping[str, Any]) -> None:
        """Take away an image that ``create`` made, because what was to lie in it failed.

        ``options`` are those of blockdev-add.  By default nothing is done.

        :raises BlockyardError: if it fails.
        """

    @classmethod
    def driver_name(cls) -> str:
        """The name for texts of class methods; the declaration's."""
        declaration = getattr(cls, "type", None)
        return declaration.name if declaration is not None else cls.__name__
