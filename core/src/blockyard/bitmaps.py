# SPDX-License-Identifier: Apache-2.0
"""Dirty bitmaps: what has changed in a node since a point in time.

``node.bitmaps`` holds them by name, the oldest first.  QMP makes and removes them
(``commands/bitmap.py``), exports show them, and a format keeps the persistent ones
in its image.  Such a format

* answers :meth:`~blockyard.node.Driver.can_store_bitmap`, and drops what it stored in
  :meth:`~blockyard.node.Driver.remove_persistent_bitmap`;
* in ``open``, and in ``set_active(True)``, calls :func:`load` for each bitmap of the
  image and fills it with :meth:`DirtyBitmap.deserialise` and :meth:`DirtyBitmap.mark`.
  One that was not closed properly is ``inconsistent`` and stays empty; in an image that
  is opened read-only all are ``read_only``;
* in ``before_close`` and ``set_active(False)`` stores each of :func:`to_store` from its
  :meth:`DirtyBitmap.pieces`, and then calls :func:`release_stored`;
* in a reopen to read-only stores them likewise, and sets ``read_only`` of all of
  :func:`persistent` in place of releasing them; in one to writable, once the image says
  that they are in use, takes ``read_only`` back.  While a bitmap is read-only the node
  refuses to change data.

A bit is set when a request that changes data *completes*, before whoever made the
request hears of it, and also when it failed, for it may have changed something.  So
whoever clears or enables a bitmap and copies the node afterwards misses nothing: a
request under way then is still to set its bits.  A content that must agree with the
data (storing it, merging or clearing several at one point in time) is taken in a
drained section; ``before_close``, ``set_active`` and reopens run in one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.dirtybitmap import Check, DirtyBitmap
from blockyard.errors import InvalidOption, NotFound
from blockyard.native import lib

if TYPE_CHECKING:
    from blockyard.graph import Graph
    from blockyard.node import Node

__all__ = [
    "MAX_NAME",
    "Check",
    "DirtyBitmap",
    "attach",
    "close",
    "create",
    "default_granularity",
    "find",
    "load",
    "lookup",
    "persistent",
    "release",
    "release_stored",
    "to_store",
]

#: Longest name, in bytes.
MAX_NAME = 1023
_MIN_GRANULARITY = 512
_DEFAULT_GRANULARITY = 65536


def find(node: Node, name: str) -> DirtyBitmap | None:
    """The node's bitmap of that name, or None."""
    found: DirtyBitmap | None = node.bitmaps.get(name)
    return found


def lookup(graph: Graph, node_name: str, name: str) -> DirtyBitmap:
    """The bitmap that a command names.

    :raises NotFound: if there is no such node, or no such bitmap.
    """
    node = graph.nodes.get(node_name)
    if node is None:
        raise NotFound(f"Node '{node_name}' not found")
    bitmap = find(node, name)
    if bitmap is None:
        raise NotFound(f"Dirty bitmap '{name}' not found")
    return bitmap


def default_granularity(node: Node) -> int:
    """Bytes: the node's cluster size, but 4 KiB to 64 KiB, and 64 KiB where it has none."""
    return min(max(node.cluster_size or _DEFAULT_GRANULARITY, 4096), _DEFAULT_GRANULARITY)


def create(
    node: Node,
    name: str,
    granularity: int | None = None,
    *,
    recording: bool = True,
    persistent: bool = False,
) -> DirtyBitmap:
    """A new, clean bitmap of an open node.

    :raises InvalidOption: if name or granularity are not acceptable, or the name is taken.
    :raises BlockyardError: if it is ``persistent`` and the driver cannot store it.
    """
    if not name:
        raise InvalidOption("Bitmap name cannot be empty")
    if granularity is None:
        granularity = default_granularity(node)
    elif granularity < _MIN_GRANULARITY or granularity & (granularity - 1):
        raise InvalidOption("Granularity must be power of 2 and at least 512")
    if persistent:
        node.driver.can_store_bitmap(name, granularity)
    bitmap = _add(node, name, granularity, node.length)
    bitmap.recording = recording
    bitmap.persistent = persistent
    return bitmap


def load(
    node: Node,
    name: str,
    granularity: int,
    length: int,
    *,
    recording: bool,
    read_only: bool = False,
    inconsistent: bool = False,
) -> DirtyBitmap:
    """A persistent bitmap that a driver has found in its image; clean, to be filled.

    For a driver's ``open`` and ``set_active``.  ``granularity`` is a power of two from 512
    on and below 4 GiB, ``length`` the image's, which the native node need not have yet.  A
    failed ``open`` need not undo it.

    :raises InvalidOption: if the name is taken or too long.
    """
    bitmap = _add(node, name, granularity, length)
    bitmap.persistent = True
    bitmap.inconsistent = inconsistent
    bitmap.recording = recording and not inconsistent
    bitmap.read_only = read_only
    return bitmap


def _add(node: Node, name: str, granularity: int, length: int) -> DirtyBitmap:
    if name in node.bitmaps:
        raise InvalidOption(f"Bitmap already exists: {name}")
    if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME:
        raise InvalidOption(f"Bitmap name too long: {name}")
    bitmap = node.bitmaps[name] = DirtyBitmap(node, name, granularity, length)
    if node.native is not None:
        lib.by_bitmap_attach(bitmap.native, node.native)
    return bitmap


def release(bitmap: DirtyBitmap) -> None:
    """Take a bitmap off its node, leaving what an image stores of it alone."""
    lib.by_bitmap_detach(bitmap.native)
    del bitmap.node.bitmaps[bitmap.name]


def persistent(node: Node) -> list[DirtyBitmap]:
    """The node's bitmaps that belong in its image, the newest first."""
    return [bitmap for bitmap in reversed(node.bitmaps.values()) if bitmap.stored]


def to_store(node: Node) -> list[DirtyBitmap]:
    """Those of :func:`persistent` whose content may differ from the image's."""
    return [b for b in persistent(node) if not b.inconsistent and not b.read_only]


def release_stored(node: Node) -> None:
    """Once the image has them: the node's persistent bitmaps end."""
    for bitmap in persistent(node):
        release(bitmap)


# -- for the graph


def attach(node: Node) -> None:
    """The native node is there: bitmaps that were loaded before it begin to record."""
    for bitmap in node.bitmaps.values():
        lib.by_bitmap_attach(bitmap.native, node.native)


def close(node: Node) -> None:
    """The node ends, and its bitmaps with it."""
    for bitmap in list(node.bitmaps.values()):
        release(bitmap)
