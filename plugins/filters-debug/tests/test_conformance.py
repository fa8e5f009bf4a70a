# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on blkdebug without rules, and with limits of its own."""

import os
from pathlib import Path
from typing import Any

from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite


def make_file(folder: Path, size: int, name: str = "disk.img") -> dict[str, Any]:
    """Options of a new file of that size."""
    image = folder / name
    image.touch()
    os.truncate(image, size)
    return {"driver": "file", "filename": str(image), "discard": "unmap"}


def blkdebug(**options: Any) -> Subject:
    def make(folder: Path, size: int) -> dict[str, Any]:
        return {
            "driver": "blkdebug",
            "image": make_file(folder, size),
            "discard": "unmap",
            **options,
        }

    refused = {"driver": "blkdebug", "image": {"driver": "null-co"}, "align": 3}
    return Subject(make=make, refused=(refused,))


class TestBlkdebug(ConformanceSuite):
    subject = blkdebug()


class TestBlkdebugWithLimits(ConformanceSuite):
    subject = blkdebug(
        align=4096,
        **{
            "max-transfer": 65536,
            "opt-write-zero": 16384,
            "max-write-zero": 32768,
            "opt-discard": 8192,
            "max-discard": 16384,
        },
    )


class TestBlkdebugWithRulesThatNeverHold(ConformanceSuite):
    subject = blkdebug(**{"inject-error": [{"event": "l1_update"}]})
