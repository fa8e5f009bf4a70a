# SPDX-License-Identifier: Apache-2.0
"""What a driver's author writes down: its declaration, and what ``open`` answers.

Import these from ``blockyard.node``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard.permission import Role
from blockyard.request import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockyard.creation import Creation
    from blockyard.node import Driver

__all__ = ["ChildSpec", "DriverType", "NamedImage", "Opened"]


@attrs.frozen
class NamedImage:
    """A child that a name names in its turn; :attr:`DriverType.parse_filename` answers it.

    ``probe``: it is an image whose format is looked for, not the file alone.
    """

    name: str
    probe: bool = False


@attrs.frozen(eq=False, repr=False, kw_only=True)
class ChildSpec:
    """A child that a driver's options can name; its order is the native slot's."""

    #: The option's name and the child's: ``file``, ``backing``...
    name: str
    role: Role = Role.IMAGE
    #: The option may be absent or null; the slot is then a null pointer.
    optional: bool = False
    #: The option is a list; the children are called ``name.0``, ``name.1``...
    many: bool = False


@attrs.frozen(eq=False, repr=False, kw_only=True)
class DriverType:
    """The declaration of a driver: cheap to import, found by entry point.

    ``implementation`` (``"module:Class"``) is imported when the first node is opened.
    """

    #: The name in QMP, ``"qcow2"``.
    name: str
    #: ``"protocol"``, ``"format"`` or ``"filter"``.
    kind: str
    #: The schema's struct for this branch of BlockdevOptions.
    #: None when there are none beyond the common ones.
    options: type | None
    implementation: str | type[Driver]
    #: The schema's struct for this branch of BlockdevCreateOptions.
    create_options: type | None = None
    #: The schema's struct for this branch of BlockdevAmendOptions.
    amend_options: type | None = None
    #: The schema's struct for this branch of ImageInfoSpecific, without its wrapper.
    image_info_type: type | None = None
    #: The schema's struct for this branch of BlockStatsSpecific.
    statistics_type: type | None = None
    children: tuple[ChildSpec, ...] = ()
    #: Options of ``options`` that blockdev-reopen may change, or set back by leaving out.
    mutable_options: tuple[str, ...] = ()
    #: Whether the format records a backing file, so that reopen must name it.
    supports_backing: bool = False
    #: How sure the format is that an image is its own, given the first 2048 bytes (the
    #: rest of a shorter image is zeroes) and the image's name: 0 for no, 100 for a mark
    #: that is its own.  The bytes may be anybody's.  None: it is never guessed.
    probe: Callable[[bytes, str], int] | None = None
    #: A protocol's prefixes in names of images, ``("nbd", "nbd+unix")``.
    prefixes: tuple[str, ...] = ()
    #: What blockdev-add takes for a name of an image, whose prefix is one of ``prefixes``,
    #: without ``driver``; it raises a BlockyardError for a bad one.  None: the option
    #: ``filename`` is what follows the prefix and its colon.  Children of the answer
    #: may be a :class:`NamedImage`.
    parse_filename: Callable[[str], dict[str, Any]] | None = None
    #: Whether writes may be flagged as ones to compress, in whole clusters.
    compresses: bool = False
    #: ``"module:NAME"`` of a :class:`blockyard.creation.Creation`: how people make and
    #: amend images of it.  None: nobody makes such images.
    creation: str | Creation | None = None
    #: What blockdev-add takes for options that a name or a program's command line gave,
    #: which may be older ones that QMP does not know; the node's own, children as they are.
    #: It raises a BlockyardError for bad ones.  None: they are taken as they are.
    adapt_options: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    @property
    def is_protocol(self) -> bool:
        """Whether a name can lead to it: a protocol, or a filter that has prefixes."""
        return self.kind == "protocol" or bool(self.prefixes)


@attrs.frozen(eq=False, repr=False, kw_only=True)
class Opened:
    """What a driver's ``open`` hands to core: its native half."""

    #: Address of the ``struct by_node_ops``; it outlives the node.  A driver in
    #: Python leaves it at 0.
    ops: int = 0
    #: Address of the driver's own state, given to every operation.
    state: int = 0
    #: Bytes.
    length: int
    limits: Limits = attrs.field(factory=Limits)
