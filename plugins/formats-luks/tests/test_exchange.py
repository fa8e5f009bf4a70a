# SPDX-License-Identifier: Apache-2.0
"""Volumes of QEMU's read here, and ours read by QEMU: every way to encrypt one."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from luks_volumes import (
    MIB,
    detached_header,
    file_of,
    in_yard,
    make_by_qemu,
    options_of,
    qemu,
    qemu_io,
    qemu_options,
)

from blockyard.schema import visit
from blockyard.yard import Yard
from blockyard_formats_luks.formatting import format_image
from blockyard_formats_luks.schema import BlockdevCreateOptionsLUKS

BY_LENGTH = {
    "128": ("aes-128", "serpent-128", "twofish-128"),
    "256": ("aes-256", "serpent-256", "twofish-256"),
}
WHOLE = [name for names in BY_LENGTH.values() for name in names]
#: Their key material does not end with a sector, which QEMU only takes where there are two keys.
UNEVEN = ["aes-192", "serpent-192"]
HASHES = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", "sm3"]

CIPHERS = [
    *itertools.product(WHOLE, ("ecb", "cbc", "xts", "ctr")),
    *itertools.product(UNEVEN, ("xts",)),
    *itertools.product(("cast5-128",), ("ecb", "cbc", "ctr")),
]
#: IV generators with the hashes whose digest is a key of the cipher.
VECTORS = [
    ("aes-256", "plain", None),
    ("aes-256", "plain64", None),
    ("cast5-128", "plain", None),
    ("cast5-128", "essiv", "md5"),
    *((cipher, "essiv", "md5") for cipher in BY_LENGTH["128"]),
    *((cipher, "essiv", "sha256") for cipher in WHOLE),
    *((cipher, "essiv", "sm3") for cipher in WHOLE),
]
WAYS: list[dict[str, str]] = [
    *({"cipher-alg": cipher, "cipher-mode": mode} for cipher, mode in CIPHERS),
    *(
        {"cipher-alg": cipher, "cipher-mode": "cbc", "ivgen-alg": ivgen}
        | ({"ivgen-hash-alg": name} if name else {})
        for cipher, ivgen, name in VECTORS
    ),
    *({"cipher-alg": "aes-128", "hash-alg": name} for name in HASHES),
    {"ivgen-alg": "essiv"},
    {"ivgen-alg": "plain", "ivgen-hash-alg": "sha1"},
]
#: QEMU takes seconds to make a volume, so a third of them, and one for each hash.
MADE_BY_QEMU = [way for number, way in enumerate(WAYS) if number % 3 == 0 or "hash-alg" in way]


def label(way: dict[str, str]) -> str:
    return "-".join(way.values())


#: Where the tests write: the first sectors, some in the middle, and the last one.
WRITES = {0: 2048, 5 * 512: 512, 70000 // 512 * 512: 65536, MIB - 512: 512}


def content() -> bytes:
    data = bytearray(MIB)
    for number, (offset, length) in enumerate(WRITES.items()):
        data[offset : offset + length] = bytes([0xA0 + number]) * length
    return bytes(data)


def commands(verb: str) -> list[str]:
    return [
        f"{verb} -P {0xA0 + number} {offset} {length}"
        for number, (offset, length) in enumerate(WRITES.items())
    ]


async def create(yard: Yard, image: Path, **options: Any) -> None:
    image.touch()
    given = {"key-secret": "key", "iter-time": 10, "size": MIB, "file": file_of(image), **options}
    await format_image(visit(BlockdevCreateOptionsLUKS, given), yard)


@pytest.mark.parametrize("way", MADE_BY_QEMU, ids=label)
def test_what_qemu_made_is_read_and_written(way: dict[str, str], tmp_path: Path) -> None:
    image = make_by_qemu(tmp_path / "disk.luks", **way)
    qemu_io(image, f"write -P 0 0 {MIB}", *commands("write"))

    async def exchange(yard: Yard) -> bytes:
        async with await yard.open(options_of(image)) as disk:
            found: bytes = await disk.read(0, disk.length)
            await disk.write(0, bytes(MIB))
            await disk.write(3 * 512, b"\x77" * 1024)
            return found

    assert in_yard(exchange) == content()
    qemu_io(image, "read -P 0 0 1536", "read -P 0x77 1536 1024", f"read -P 0 2560 {MIB - 2560}")


@pytest.mark.parametrize("way", WAYS, ids=label)
def test_what_was_made_here_is_read_by_qemu(way: dict[str, str], tmp_path: Path) -> None:
    image = tmp_path / "disk.luks"

    async def make(yard: Yard) -> dict[str, Any]:
        await create(yard, image, **way)
        async with await yard.open(options_of(image)) as disk:
            await disk.write(0, content())
            info: dict[str, Any] = await disk.node.driver.image_info()
            return info

    told = in_yard(make)
    (tmp_path / "plain.img").write_bytes(content())
    plain = f"driver=raw,file.driver=file,file.filename={tmp_path / 'plain.img'}"
    qemu("qemu-img", "compare", "-q", *qemu_options(image), plain)
    info = json.loads(qemu("qemu-img", "info", "--output=json", *qemu_options(image)))
    assert info["format-specific"] == told["format-specific"]
    assert info["encrypted"] is told["encrypted"] is True


@pytest.mark.parametrize("cipher", ["aes-192", "serpent-192"])
@pytest.mark.parametrize("mode", ["ecb", "cbc", "ctr"])
def test_key_material_that_ends_within_a_sector(cipher: str, mode: str, tmp_path: Path) -> None:
    image = tmp_path / "disk.luks"

    async def make(yard: Yard) -> bytes:
        await create(yard, image, **{"cipher-alg": cipher, "cipher-mode": mode})
        async with await yard.open(options_of(image)) as disk:
            await disk.write(0, content())
        async with await yard.open(options_of(image)) as disk:
            found: bytes = await disk.read(0, MIB)
            return found

    assert in_yard(make) == content()


@pytest.mark.parametrize("mode", ["ecb", "cbc", "xts", "ctr"])
def test_a_cipher_that_this_qemu_was_built_without(mode: str, tmp_path: Path) -> None:
    image = tmp_path / "disk.luks"

    async def make(yard: Yard) -> bytes:
        await create(yard, image, **{"cipher-alg": "sm4", "cipher-mode": mode})
        async with await yard.open(options_of(image)) as disk:
            await disk.write(0, content())
            found: bytes = await disk.read(0, MIB)
            return found

    assert in_yard(make) == content()
    assert image.read_bytes()[8:12] == b"sm4\0"


def test_nothing_of_the_data_is_on_disk_in_the_clear(tmp_path: Path) -> None:
    image = tmp_path / "disk.luks"
    text = os.urandom(16)

    async def make(yard: Yard) -> None:
        await create(yard, image)
        async with await yard.open(options_of(image)) as disk:
            for length in (512, 4096, 65536, MIB):
                await disk.write(MIB - length, text * (length // 16))
            await disk.flush()

    in_yard(make)
    assert text not in image.read_bytes()


def test_writing_leaves_the_payload_as_it_was(tmp_path: Path) -> None:
    """It is the submitter's memory: a guest's, that reads it meanwhile."""
    image = make_by_qemu(tmp_path / "disk.luks")
    data = bytearray(content())

    async def write(yard: Yard) -> None:
        async with await yard.open(options_of(image)) as disk:
            for length in (512, 4096, MIB):
                await disk.write(0, memoryview(data)[:length])

    in_yard(write)
    assert data == content()


def test_a_header_apart(tmp_path: Path) -> None:
    header, image = tmp_path / "header.luks", tmp_path / "disk.img"
    header.touch()

    async def make(yard: Yard) -> None:
        await create(yard, image, header=file_of(header), preallocation="full")
        async with await yard.open(options_of(image, header=file_of(header))) as disk:
            await disk.write(0, content())

    in_yard(make)
    assert image.stat().st_size == MIB
    (tmp_path / "plain.img").write_bytes(content())
    plain = f"driver=raw,file.driver=file,file.filename={tmp_path / 'plain.img'}"
    qemu("qemu-img", "compare", "-q", *qemu_options(image, header), plain)


def test_a_header_apart_from_elsewhere(tmp_path: Path) -> None:
    made = make_by_qemu(tmp_path / "made.luks").read_bytes()
    header, image = tmp_path / "header.luks", tmp_path / "disk.img"
    header.write_bytes(detached_header(made[:-MIB]))
    image.write_bytes(made[-MIB:])
    qemu_io(image, f"write -P 7 0 {MIB}", header=header)

    async def read(yard: Yard) -> bytes:
        async with await yard.open(options_of(image, header=file_of(header))) as disk:
            found: bytes = await disk.read(0, MIB)
            return found

    assert in_yard(read) == b"\x07" * MIB
