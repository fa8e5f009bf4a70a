# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on volumes: header before the data, header apart, other ciphers."""

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from luks_volumes import detached_header, file_of, make_by_qemu, options_of, secret

from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite


@cache
def template(**options: object) -> bytes:
    """A volume without data."""
    with tempfile.TemporaryDirectory() as folder:
        return make_by_qemu(Path(folder) / "disk.luks", size=0, **options).read_bytes()


def refused(folder: str, **more: Any) -> dict[str, Any]:
    return {**options_of(Path(folder) / "disk.luks"), **more}


def subject(large: bool = False, file: dict[str, Any] | None = None, **options: object) -> Subject:
    def make(folder: Path, size: int) -> dict[str, Any]:
        image = folder / "disk.luks"
        image.write_bytes(template(**options))
        os.truncate(image, image.stat().st_size + size)
        made = options_of(image)
        made["file"] |= file or {}
        return made

    return Subject(
        make=make,
        objects=(secret(),),
        grows_zero=False,
        large=large,
        refused=(refused("/nonexistent"), {"driver": "luks", "file": {"driver": "null-co"}}),
    )


def detached() -> Subject:
    def make(folder: Path, size: int) -> dict[str, Any]:
        header, image = folder / "header.luks", folder / "disk.img"
        header.write_bytes(detached_header(template()))
        image.touch()
        os.truncate(image, size)
        return options_of(image, header=file_of(header))

    return Subject(make=make, objects=(secret(),), grows_zero=False)


class TestAttached(ConformanceSuite):
    subject = subject(large=True)


class TestDetached(ConformanceSuite):
    subject = detached()


class TestDirect(ConformanceSuite):
    subject = subject(file={"cache": {"direct": True}})


class TestSlowCipher(ConformanceSuite):
    subject = subject(cipher_alg="serpent-256", cipher_mode="cbc", ivgen_alg="essiv")


class TestShortBlocks(ConformanceSuite):
    subject = subject(cipher_alg="cast5-128", cipher_mode="ctr")
