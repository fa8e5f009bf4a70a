# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on images that copy what is read: over files and over backing files."""

import os
import subprocess
from pathlib import Path
from typing import Any

from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite

IMG = os.environ.get("BLOCKYARD_QEMU_IMG", "qemu-img")


def over_file(folder: Path, size: int) -> dict[str, Any]:
    image = folder / "disk.img"
    image.touch()
    os.truncate(image, size)
    file = {"driver": "file", "filename": str(image), "discard": "unmap"}
    return {"driver": "copy-on-read", "file": file, "discard": "unmap"}


def over_chain(folder: Path, size: int) -> dict[str, Any]:
    base, top = folder / "base.img", folder / "top.qcow2"
    base.touch()
    os.truncate(base, size)
    words = [IMG, "create", "-q", "-f", "qcow2", "-b", base.name, "-F", "raw", str(top)]
    subprocess.run(words, check=True, cwd=folder)
    image = {
        "driver": "qcow2",
        "file": {"driver": "file", "filename": str(top)},
        "backing": {"driver": "raw", "file": {"driver": "file", "filename": str(base)}},
        "discard": "unmap",
    }
    return {"driver": "copy-on-read", "file": image, "discard": "unmap"}


class TestOverFile(ConformanceSuite):
    subject = Subject(
        make=over_file,
        writes_always=True,
        refused=({"driver": "copy-on-read", "bottom": "nobody", "file": {"driver": "null-co"}},),
    )


class TestOverChain(ConformanceSuite):
    subject = Subject(make=over_chain, writes_always=True)
