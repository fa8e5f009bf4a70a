# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on images of every layout."""

from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from blockyard.schema import visit
from blockyard.schema.block import BlockdevCreateOptions
from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite
from blockyard.yard import Yard
from blockyard_formats_qcow2.driver import Qcow2Driver


def file(path: Path) -> dict[str, Any]:
    return {"driver": "file", "filename": str(path)}


async def create(path: Path, size: int, **options: Any) -> None:
    """Make an image, in a yard on a thread of its own: an event loop has one at a time."""
    path.touch()
    given = {"driver": "qcow2", "file": file(path), "size": size, **options}

    async def make() -> None:
        async with Yard() as yard:
            await Qcow2Driver.create(visit(BlockdevCreateOptions, given).u, yard)

    await anyio.to_thread.run_sync(anyio.run, make)


def subject(opened: dict[str, Any] | None = None, **options: Any) -> Subject:
    async def make(folder: Path, size: int) -> dict[str, Any]:
        image = folder / "disk.qcow2"
        await create(image, size, **options)
        return {"driver": "qcow2", "file": file(image), "discard": "unmap", **(opened or {})}

    missing = {"driver": "qcow2", "file": {"driver": "null-co"}}
    return Subject(make=make, large=True, refused=(missing,))


def with_data_file(raw: bool) -> Subject:
    async def make(folder: Path, size: int) -> dict[str, Any]:
        image, data = folder / "disk.qcow2", folder / "data.raw"
        data.touch()
        await create(image, size, **{"data-file": file(data), "data-file-raw": raw})
        return {"driver": "qcow2", "file": file(image), "data-file": file(data)}

    return Subject(make=make)


def over_a_backing_file() -> Subject:
    async def make(folder: Path, size: int) -> dict[str, Any]:
        base, image = folder / "base.raw", folder / "disk.qcow2"
        base.write_bytes(bytes(min(size, 1 << 20)))
        await create(image, size, **{"backing-file": str(base), "backing-fmt": "raw"})
        return {"driver": "qcow2", "file": file(image)}

    return Subject(make=make)


class TestDefault(ConformanceSuite):
    subject = subject()


class TestOnTrio(ConformanceSuite):
    subject = subject()
    backend = "trio"


class TestWithoutRing(ConformanceSuite):
    subject = subject()
    without_ring = True


class TestDirect(ConformanceSuite):
    subject = subject({"cache": {"direct": True}})


class TestVersion2(ConformanceSuite):
    subject = subject(version="v2")


class TestSmallClusters(ConformanceSuite):
    subject = subject(**{"cluster-size": 512, "refcount-bits": 1})


class TestLargeClusters(ConformanceSuite):
    subject = subject(**{"cluster-size": 2 << 20, "refcount-bits": 64})


class TestSubclusters(ConformanceSuite):
    subject = subject(**{"extended-l2": True, "cluster-size": 16384})


class TestLazyRefcounts(ConformanceSuite):
    subject = subject(**{"lazy-refcounts": True})


class TestPreallocated(ConformanceSuite):
    subject = subject(preallocation="metadata")


class TestTinyCaches(ConformanceSuite):
    subject = subject(
        {"l2-cache-size": 1024, "l2-cache-entry-size": 512, "refcount-cache-size": 1},
        **{"cluster-size": 4096},
    )


class TestKeepingClusters(ConformanceSuite):
    subject = subject({"discard-no-unref": True, "pass-discard-other": True})


class TestDataFile(ConformanceSuite):
    subject = with_data_file(raw=False)


class TestRawDataFile(ConformanceSuite):
    subject = with_data_file(raw=True)


class TestOverABackingFile(ConformanceSuite):
    subject = over_a_backing_file()
