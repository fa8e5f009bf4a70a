# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on throttled images: unlimited, and with limits that are always felt."""

import os
from pathlib import Path
from typing import Any

from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite


def subject(limits: dict[str, int] | None = None, **file: Any) -> Subject:
    def make(folder: Path, size: int) -> dict[str, Any]:
        image = folder / "disk.img"
        image.touch()
        os.truncate(image, size)
        below = {"driver": "file", "filename": str(image), "discard": "unmap", **file}
        return {"driver": "throttle", "throttle-group": "g", "file": below, "discard": "unmap"}

    group = {"qom-type": "throttle-group", "id": "g", "limits": limits or {}}
    refused = {"driver": "throttle", "throttle-group": "nobody", "file": {"driver": "null-co"}}
    return Subject(make=make, objects=(group,), refused=(refused,))


class TestUnlimited(ConformanceSuite):
    subject = subject()


class TestDirect(ConformanceSuite):
    subject = subject(cache={"direct": True})


class TestLimited(ConformanceSuite):
    subject = subject({"iops-total": 20000, "bps-write": 2 << 30})
