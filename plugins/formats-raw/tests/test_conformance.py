# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on raw images: whole files, parts of files, unaligned parts."""

import os
from pathlib import Path
from typing import Any

from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite


def subject(before: int = 0, after: int = 0, fixed: bool = False, **file: Any) -> Subject:
    def make(folder: Path, size: int) -> dict[str, Any]:
        image = folder / "disk.img"
        image.touch()
        os.truncate(image, before + size + after)
        options = {"driver": "raw", "file": {"driver": "file", "filename": str(image), **file}}
        if before:
            options["offset"] = before
        if fixed:
            options["size"] = size
        return {**options, "discard": "unmap"}

    refused = {"driver": "raw", "file": {"driver": "null-co"}, "offset": (1 << 30) + 1}
    return Subject(make=make, refused=(refused,))


class TestWhole(ConformanceSuite):
    subject = subject()


class TestDirect(ConformanceSuite):
    subject = subject(cache={"direct": True})


class TestPart(ConformanceSuite):
    subject = subject(before=4096, after=8192, fixed=True)


class TestUnalignedPart(ConformanceSuite):
    subject = subject(before=1111, after=777, fixed=True)


class TestBehindAnOffset(ConformanceSuite):
    subject = subject(before=65536)


class TestUnalignedDirect(ConformanceSuite):
    subject = subject(before=1536, fixed=True, cache={"direct": True})
