# SPDX-License-Identifier: Apache-2.0
"""A node over a Python file object, for programs; never in the daemon."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from blockyard.errors import InvalidOption
from blockyard.node import DriverType, Opened, PythonDriver
from blockyard.schema import struct

if TYPE_CHECKING:
    from blockyard.plugins import Registry
    from blockyard.request import Preallocation, RequestFlags

__all__ = ["FileObjectDriver", "options_of"]

_NAME = "python-file"
_numbers = itertools.count()
_objects: dict[str, Any] = {}


@struct
class BlockdevOptionsFileObject:
    """Options of the driver, which :func:`options_of` makes.

    object: the number under which the file object waits to be opened.
    """

    object: str


def options_of(file: Any, registry: Registry) -> dict[str, Any]:
    """What opens ``file``, a seekable binary file object, once.

    It stays the caller's, who leaves it alone until the node is closed, and closes it then.
    """
    if not registry.has("drivers", _NAME):
        registry.add("drivers", _NAME, FileObjectDriver.type)
    number = str(next(_numbers))
    _objects[number] = file
    return {"driver": _NAME, "object": number}


class FileObjectDriver(PythonDriver):
    """Reads and writes one at a time, on a thread that may wait."""

    type = DriverType(
        name=_NAME,
        kind="protocol",
        options=BlockdevOptionsFileObject,
        implementation="blockyard_formats_qcow2.fileobject:FileObjectDriver",
    )

    async def open(self) -> Opened:
        """Take the object; its length is where its end is.

        :raises InvalidOption: if it is not seekable, or not writable and should be.
        """
        try:
            self._file = _objects.pop(self.options.object)
        except KeyError as error:
            raise InvalidOption("The file object is open already") from error
        self._lock = threading.Lock()
        if not self._file.seekable():
            raise InvalidOption("The file object is not seekable")
        if not self.node.read_only and not self._file.writable():
            raise InvalidOption("The file object is not writable")
        return Opened(length=await self._aside(self._file.seek, 0, 2))

    async def _aside(self, function: Any, *args: Any) -> Any:
        def alone() -> Any:
            with self._lock:
                return function(*args)

        return await anyio.to_thread.run_sync(alone)

    async def read_into(self, offset: int, view: memoryview) -> None:
        """Fill the view; what the object does not have reads as zeroes."""
        await self._aside(self._fill, offset, view)

    def _fill(self, offset: int, view: memoryview) -> None:
        self._file.seek(offset)
        done = 0
        while done < len(view):
            piece = self._file.read(len(view) - done)
            if not piece:
                view[done:] = bytes(len(view) - done)
                return
            view[done : done + len(piece)] = piece
            done += len(piece)

    async def write(self, offset: int, view: memoryview, flags: RequestFlags) -> None:
        """Write all of the view."""
        await self._aside(self._put, offset, bytes(view))

    def _put(self, offset: int, data: bytes) -> None:
        self._file.seek(offset)
        done = 0
        while done < len(data):
            # A buffered object answers the whole length, a raw one what it has taken.
            done += self._file.write(data[done:])

    async def flush(self) -> None:
        """Hand on what the object buffers."""
        await self._aside(self._file.flush)

    async def truncate(self, length: int, prealloc: Preallocation, exact: bool) -> None:
        """Cut the end off, or append zeroes."""
        await self._aside(self._resize, length)

    def _resize(self, length: int) -> None:
        end = self._file.seek(0, 2)
        if length < end:
            self._file.truncate(length)
        elif length > end:
            # Not every object grows by truncate (io.BytesIO does not).
            self._file.seek(length - 1)
            self._file.write(b"\0")
