# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on images that are written compressed."""

import os
import subprocess
from pathlib import Path
from typing import Any

from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite

IMG = os.environ.get("BLOCKYARD_QEMU_IMG", "qemu-img")


def make(folder: Path, size: int) -> dict[str, Any]:
    image = folder / "disk.qcow2"
    options = ["-o", "cluster_size=4k"]
    subprocess.run([IMG, "create", "-q", "-f", "qcow2", *options, image, str(size)], check=True)
    file = {"driver": "file", "filename": str(image)}
    below = {"driver": "qcow2", "file": file, "discard": "unmap"}
    return {"driver": "compress", "file": below, "discard": "unmap"}


class TestCompress(ConformanceSuite):
    subject = Subject(make=make, refused=({"driver": "compress", "file": {"driver": "null-co"}},))
