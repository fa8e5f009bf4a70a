# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on files that grow in steps, alone and under a format."""

import os
import subprocess
from pathlib import Path
from typing import Any

from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite

IMG = os.environ.get("BLOCKYARD_QEMU_IMG", "qemu-img")


def over(image: Path) -> dict[str, Any]:
    return {
        "driver": "preallocate",
        "prealloc-size": 1 << 20,
        "prealloc-align": 65536,
        "file": {"driver": "file", "filename": str(image), "discard": "unmap"},
        "discard": "unmap",
    }


def plain(folder: Path, size: int) -> dict[str, Any]:
    image = folder / "disk.img"
    image.touch()
    os.truncate(image, size)
    return over(image)


def qcow2(folder: Path, size: int) -> dict[str, Any]:
    image = folder / "disk.qcow2"
    subprocess.run([IMG, "create", "-q", "-f", "qcow2", image, str(size)], check=True)
    return {"driver": "qcow2", "file": over(image), "discard": "unmap"}


class TestPlain(ConformanceSuite):
    subject = Subject(
        make=plain,
        refused=({"driver": "preallocate", "prealloc-align": 511, "file": {"driver": "null-co"}},),
    )


class TestUnderQcow2(ConformanceSuite):
    subject = Subject(make=qcow2)
