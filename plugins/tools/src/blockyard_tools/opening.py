# SPDX-License-Identifier: Apache-2.0
"""Opening the images that a command line names."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import attrs

from blockyard_tools.error import ProgramError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blockyard.image import Image
    from blockyard.permission import Perm
    from blockyard.yard import Yard

__all__ = ["CACHE_MODES", "How", "cache_options", "image_options", "open_image", "parse_cache"]

#: By the mode's name: ``(direct, no-flush, writeback)``; what it is not given, QEMU's
#: ``-t`` does not take.
CACHE_MODES: dict[str, tuple[bool, bool, bool]] = {
    "none": (True, False, True),
    "off": (True, False, True),
    "directsync": (True, False, False),
    "writeback": (False, False, True),
    "unsafe": (False, True, True),
    "writethrough": (False, False, False),
}


@attrs.frozen(kw_only=True)
class How:
    """How an image that is named on a command line is opened."""

    #: The driver's name (``-f``); None: the image is probed.
    format: str | None = None
    #: The name is an ``--image-opts`` string.
    image_opts: bool = False
    writable: bool = False
    #: A key of :data:`CACHE_MODES` (``-t``, ``-T``).
    cache: str = "writeback"
    #: Share everything with other processes (``-U``).
    force_share: bool = False
    #: False: the backing file stays closed.
    backing: bool = True
    #: False: the image is only asked about; what is encrypted stays so.
    contents: bool = True
    #: The image is opened to be checked, and may be damaged.
    checking: bool = False
    #: Who warns of what is deprecated.
    program: str = "qemu-img"
    #: More options of the node, before what the name says (discard, detect-zeroes...).
    options: Mapping[str, Any] = attrs.field(factory=dict)
    #: Options that hold unless the name or ``options`` say otherwise.
    defaults: Mapping[str, Any] = attrs.field(factory=dict)


async def open_image(
    yard: Yard,
    name: str | None,
    how: How,
    *,
    perm: Perm | None = None,
    shared: Perm | None = None,
) -> Image:
    """Open an image: a path, ``nbd://host``, ``json:{...}``, ``file:...``, or options.

    The handle is write-through where the cache mode is.  Where an image turns out to
    be raw by guessing and is opened for writing, standard error gets QEMU's warning.
    A name of None: ``how.options`` say it all.  Without ``perm`` the handle reads, and
    writes and resizes if ``how`` says so; without ``shared`` others may do what they
    like, as far as the format lets them.

    :raises BlockyardError: whose text is what follows ``qemu-img: Could not open 'NAME': ``.
    """
    from blockyard.permission import ALL, NONE, Perm

    options = dict(how.options)
    named: str | None = name
    if how.image_opts and name is not None:
        options = {**image_options(name, how.program), **options}
        named = None
    if perm is None:
        perm = Perm.CONSISTENT_READ
        perm |= Perm.WRITE | Perm.RESIZE if how.writable else NONE
    image = await yard.open_named(
        named,
        how.format,
        options,
        defaults=_defaults(how),
        backing=how.backing,
        contents=how.contents,
        checking=how.checking,
        perm=perm,
        shared=ALL if shared is None else shared,
    )
    if not CACHE_MODES[how.cache][2]:
        yard.graph.carrier.set_root_writethrough(image.root.native, True)
    _warn_guessed(image)
    return image


def _defaults(how: How) -> dict[str, Any]:
    given: dict[str, Any] = {
        "read-only": not how.writable,
        **cache_options(how.cache),
        **how.defaults,
    }
    if how.force_share:
        given["force-share"] = True
    return given


def cache_options(mode: str) -> dict[str, Any]:
    """The mode as options of blockdev-add; that a handle is write-through is not among them."""
    direct, no_flush, _ = CACHE_MODES[mode]
    return {"cache": {"direct": direct, "no-flush": no_flush}}


def parse_cache(program: str, mode: str, what: str = "cache") -> str:
    """``mode``, if it is one.

    :raises ProgramError: ``Invalid cache option: x``, with ``what`` for "cache".
    """
    if mode not in CACHE_MODES:
        raise ProgramError(program, f"Invalid {what} option: {mode}")
    return mode


def image_options(text: str, program: str = "") -> dict[str, Any]:
    """The options in an ``--image-opts`` string; their values are texts.

    ``program`` is who warns of a key that stands alone; nobody if empty.
    """
    from blockyard.schema.legacy import parse_legacy

    values = dict(parse_legacy(text, implied="file", program=program))
    values.pop("id", None)
    return values


def _warn_guessed(image: Image) -> None:
    """Say what a guessed raw image may not do."""
    node = image.node
    if not node.driver.guarded or node.type.name != "raw" or node.read_only:
        return
    from blockyard.naming import node_filename

    sys.stdout.flush()
    print(
        f"WARNING: Image format was not specified for '{node_filename(node)}' and probing "
        "guessed raw.\n"
        "         Automatically detecting the format is dangerous for raw images, write "
        "operations on block 0 will be restricted.\n"
        "         Specify the 'raw' format explicitly to remove the restrictions.",
        file=sys.stderr,
        flush=True,
    )
