# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on real files, in each way that requests can go."""

import os
from pathlib import Path
from typing import Any

from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite


def subject(**options: Any) -> Subject:
    def make(folder: Path, size: int) -> dict[str, Any]:
        image = folder / "disk.img"
        image.touch()
        os.truncate(image, size)
        return {"driver": "file", "filename": str(image), "discard": "unmap", **options}

    missing = {"driver": "file", "filename": "/nonexistent/image"}
    return Subject(make=make, refused=(missing, {**missing, "filename": ""}))


class TestBuffered(ConformanceSuite):
    subject = subject()


class TestDirect(ConformanceSuite):
    subject = subject(cache={"direct": True})


class TestThreads(ConformanceSuite):
    subject = subject(aio="threads")


class TestRing(ConformanceSuite):
    subject = subject(aio="io_uring", locking="off")


class TestOnTrio(ConformanceSuite):
    subject = subject()
    backend = "trio"
