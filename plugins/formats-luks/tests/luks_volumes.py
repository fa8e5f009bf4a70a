# SPDX-License-Identifier: Apache-2.0
"""Volumes for the tests: QEMU's programs, and yards that know the passphrase."""

import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from blockyard.schema import visit
from blockyard.schema.qom import ObjectOptions
from blockyard.yard import Yard

WORD = "pässword"
SECRET = f"secret,id=key,data={WORD}"
MIB = 1 << 20


def qemu(program: str, *words: object) -> str:
    """What a program of QEMU's prints; it succeeds."""
    command = [program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout


def qemu_options(image: object, header: object = None) -> list[str]:
    """Words that make QEMU's programs open a volume."""
    options = f"driver=luks,key-secret=key,file.driver=file,file.filename={image}"
    if header is not None:
        options += f",header.driver=file,header.filename={header}"
    return ["--object", SECRET, "--image-opts", options]


def qemu_io(image: object, *commands: str, header: object = None) -> str:
    """What qemu-io prints for commands on a volume; none of them fails."""
    words = [word for command in commands for word in ("-c", command)]
    printed = qemu("qemu-io", *qemu_options(image, header), *words)
    assert "failed" not in printed, printed
    return printed


def make_by_qemu(path: Path, size: int = MIB, **options: object) -> Path:
    """A volume of QEMU's."""
    chosen = {"key-secret": "key", "iter-time": 10}
    chosen |= {name.replace("_", "-"): value for name, value in options.items()}
    listed = ",".join(f"{name}={value}" for name, value in chosen.items())
    qemu("qemu-img", "create", "-q", "-f", "luks", "--object", SECRET, "-o", listed, path, size)
    return path


def detached_header(header: bytes) -> bytes:
    """The header with its data at the beginning of another file (qemu-img makes none)."""
    return header[:104] + bytes(4) + header[108:]


def secret(word: str = WORD, name: str = "key") -> dict[str, str]:
    """What object-add takes for a passphrase."""
    return {"qom-type": "secret", "id": name, "data": word}


def file_of(image: Path) -> dict[str, str]:
    """What blockdev-add takes for a file."""
    return {"driver": "file", "filename": str(image)}


def options_of(image: Path, **more: Any) -> dict[str, Any]:
    """What blockdev-add takes for a volume."""
    return {"driver": "luks", "key-secret": "key", "file": file_of(image), **more}


def in_yard(function: Callable[[Yard], Awaitable[Any]], *secrets: dict[str, str]) -> Any:
    """What the function answers in a yard that holds the secrets, by default the right one."""

    async def main() -> Any:
        async with Yard() as yard:
            for options in secrets or (secret(),):
                await yard.objects.add(visit(ObjectOptions, options))
            try:
                return await function(yard), None
            except Exception as error:
                return None, error

    result, error = anyio.run(main)
    if error:
        raise error
    return result
