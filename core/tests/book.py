# SPDX-License-Identifier: Apache-2.0
"""A protocol and a format in Python, for tests of what images name.

The protocol is called ``file`` and keeps its files in :data:`SHELF`.  An image of the
format ``book`` begins with ``BOOK``, followed by its header as JSON and a zero byte.
"""

import json
from typing import Any, ClassVar

from blockyard.errors import BlockyardError, NotFound, from_errno
from blockyard.imagework import CheckResult, Fix, Measure
from blockyard.node import ChildSpec, DriverType, Opened, PythonDriver
from blockyard.permission import Role
from blockyard.plugins import Registry
from blockyard.request import RequestFlags
from blockyard.schema import struct
from blockyard.schema.block import BlockdevRef, BlockdevRefOrNull
from blockyard.schema.blockinfo import SnapshotInfo

SHELF: dict[str, bytearray] = {}
_HEADER = 4096
_MARK = b"BOOK"


def put(name: str, size: int = 65536, **header: Any) -> None:
    """Put an image of ``size`` bytes on the shelf; ``backing``, ``format`` and more."""
    text = _MARK + json.dumps({"size": size, **header}).encode()
    SHELF[name] = bytearray(text.ljust(_HEADER, b"\0")) + bytearray(size)


def header_of(name: str) -> dict[str, Any]:
    """The header of an image on the shelf."""
    text = bytes(SHELF[name][len(_MARK) : _HEADER]).rstrip(b"\0")
    found: dict[str, Any] = json.loads(text)
    return found


@struct
class OptionsShelf:
    """Options of the protocol."""

    filename: str


@struct
class OptionsPlain:
    """Options of the format without a header."""

    file: BlockdevRef


@struct
class OptionsBook:
    """Options of the format."""

    file: BlockdevRef
    backing: BlockdevRefOrNull | None = None
    appendix: BlockdevRefOrNull | None = None
    ink: str | None = None


@struct
class AmendOptionsBook:
    """What can be amended."""

    ink: str | None = None


class ShelfDriver(PythonDriver):
    """Files in a dict."""

    type = DriverType(
        name="file",
        kind="protocol",
        options=OptionsShelf,
        implementation="",
        prefixes=("file", "shelf"),
    )

    async def open(self) -> Opened:
        name = self.options.filename
        if name not in SHELF:
            raise from_errno(2, f"Could not open '{name}'")
        self.data = SHELF[name]
        return Opened(length=len(self.data))

    def exact_filename(self) -> str | None:
        return str(self.options.filename)

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        pass

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    async def write(self, offset: int, view: memoryview, flags: RequestFlags) -> None:
        self.data[offset : offset + len(view)] = view


class PlainDriver(PythonDriver):
    """The file as it is."""

    type = DriverType(
        name="raw",
        kind="format",
        options=OptionsPlain,
        implementation="",
        children=(ChildSpec(name="file"),),
    )

    async def open(self) -> Opened:
        return Opened(length=self.node.children["file"].node.length)

    def strong_options(self) -> dict[str, Any]:
        return {}

    async def read(self, offset: int, length: int) -> bytes:
        return await self.child("file").read(offset, length)

    async def write(self, offset: int, view: memoryview, flags: RequestFlags) -> None:
        await self.child("file").write(offset, view)


def _score(head: bytes, name: str) -> int:
    return 100 if head.startswith(_MARK) else 0


class BookDriver(PythonDriver):
    """The format."""

    type = DriverType(
        name="book",
        kind="format",
        options=OptionsBook,
        implementation="",
        amend_options=AmendOptionsBook,
        children=(
            ChildSpec(name="file"),
            ChildSpec(name="appendix", role=Role.DATA, optional=True),
            ChildSpec(name="backing", role=Role.COW, optional=True),
        ),
        supports_backing=True,
        probe=_score,
    )
    #: What :meth:`amend` was given.
    amended: ClassVar[list[tuple[Any, bool]]] = []

    async def named_children(self) -> dict[str, Any]:
        async with self.node.reading() as file:
            head = await file.read(0, _HEADER)
        if not head.startswith(_MARK):
            raise BlockyardError("Image is not a book")
        self.header = json.loads(head[len(_MARK) :].rstrip(b"\0"))
        self.node.record_backing(self.header.get("backing"), self.header.get("format"))
        named = self.header.get("appendix")
        return {"appendix": {"driver": "file", "filename": named}} if named else {}

    async def open(self) -> Opened:
        return Opened(length=self.header["size"])

    def strong_options(self) -> dict[str, Any]:
        return {"ink": self.options.ink} if self.options.ink else {}

    async def read(self, offset: int, length: int) -> bytes:
        return await self.child("file").read(_HEADER + offset, length)

    async def write(self, offset: int, view: memoryview, flags: RequestFlags) -> None:
        await self.child("file").write(_HEADER + offset, view)

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        pass

    async def amend_begin(self) -> None:
        if self.header.get("sealed"):
            raise BlockyardError("the book is sealed")

    async def amend(self, options: Any, *, force: bool) -> None:
        if options.ink == "none":
            raise BlockyardError("there must be ink")
        self.amended.append((options.ink, force))

    async def _store(self) -> None:
        text = _MARK + json.dumps(self.header).encode()
        async with self.node.reading() as file:
            await file.write(0, text.ljust(_HEADER, b"\0"))

    async def snapshots(self) -> list[SnapshotInfo]:
        return [SnapshotInfo(**each) for each in self.header.get("snapshots", [])]

    async def snapshot_create(self, name: str, info: SnapshotInfo) -> SnapshotInfo:
        if name == "bad":
            raise from_errno(28)
        kept = self.header.setdefault("snapshots", [])
        info.id = str(1 + max((int(each["id"]) for each in kept), default=0))
        kept.append(
            {
                "id": info.id,
                "name": name,
                "vm_state_size": 0,
                "date_sec": info.date_sec,
                "date_nsec": info.date_nsec,
                "vm_clock_sec": info.vm_clock_sec,
                "vm_clock_nsec": info.vm_clock_nsec,
            }
        )
        await self._store()
        return info

    async def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> SnapshotInfo:
        for each in self.header.get("snapshots", []):
            if snapshot_id in (None, each["id"]) and name in (None, each["name"]):
                self.header["snapshots"].remove(each)
                await self._store()
                return SnapshotInfo(**each)
        raise NotFound("Can't find the snapshot")

    async def change_backing(self, file: str | None, fmt: str | None) -> None:
        if file is not None and len(file) > 1023:
            raise from_errno(22)
        self.header |= {"backing": file, "format": fmt}
        await self._store()

    async def check(self, fix: Fix = Fix.NONE) -> CheckResult:
        return CheckResult(leaks=self.header.get("leaks", 0))

    @classmethod
    async def measure(cls, options: Any, source: Any) -> Measure:
        size = options["size"] if source is None else source.length
        return Measure(required=_HEADER, fully_allocated=_HEADER + size)


def book_registry() -> Registry:
    """These drivers and nothing else."""
    made = Registry(only="")
    made.add("drivers", "file", ShelfDriver)
    made.add("formats", "raw", PlainDriver)
    made.add("formats", "book", BookDriver)
    return made
