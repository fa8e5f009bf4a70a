# SPDX-License-Identifier: Apache-2.0
"""The header: what QEMU writes is read and written alike, what is bad is refused in its words."""

from __future__ import annotations

import os
import random
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.errors import BlockyardError
from blockyard_formats_qcow2 import extension
from blockyard_formats_qcow2.extension import BitmapsExtension, Extensions
from blockyard_formats_qcow2.header import (
    Header,
    check_fields,
    check_size,
    cluster_bytes,
    parse_fields,
)
from blockyard_formats_qcow2.reading import parse_header

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {
    "v2": "compat=0.10",
    "v3": "compat=1.1",
    "small": "cluster_size=512",
    "large": "cluster_size=2M",
    "subclusters": "extended_l2=on",
    "zstd": "compression_type=zstd",
    "lazy": "lazy_refcounts=on,refcount_bits=64",
}
#: Offset and length of the header's fields.
FIELDS = [
    (4, 4), (8, 8), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 4),
    (60, 4), (64, 8), (72, 8), (80, 8), (88, 8), (96, 4), (100, 4), (104, 1), (105, 4),
]  # fmt: skip
VALUES = [
    0, 1, 2, 3, 4, 5, 8, 9, 16, 21, 22, 64, 72, 104, 112, 512, 1024, 65535, 65536, 1 << 31,
    (1 << 32) - 1, 1 << 40, (1 << 63) - 512, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
    extension.BITMAPS, extension.CRYPTO, extension.FEATURE_TABLE, extension.BACKING_FORMAT,
    extension.DATA_FILE,
]  # fmt: skip


def start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2 << 20)


@pytest.mark.parametrize("kind", KINDS)
def test_what_qemu_writes_is_written_back_alike(kind: str, tmp_path: Path, qemu_img: Any) -> None:
    path = tmp_path / "image"
    backing = tmp_path / "backing"
    backing.write_bytes(bytes(1 << 20))
    qemu_img(
        "create", "-q", "-f", "qcow2", "-o", KINDS[kind], "-b", backing, "-F", "raw", path, "4M"
    )
    data = start(path)
    found = parse_header(data, writable=True)
    assert found.header.size == 4 << 20
    assert found.extensions.backing_file == str(backing)
    assert found.extensions.backing_format == "raw"
    built = extension.build(found.header, found.extensions)
    assert built == data[: len(built)]
    assert not any(data[len(built) : found.header.cluster_size])


def test_unknown_extensions_and_fields_are_kept() -> None:
    header = Header(cluster_bits=12, unknown=b"later".ljust(16, b"!"), size=1 << 20)
    kept = Extensions(
        backing_file="über/base",
        backing_format="qcow2",
        unknown=((0x12345678, b"seven b"), (0x12345678, b""), (7, bytes(range(16)))),
        bitmaps=BitmapsExtension(count=2, directory_offset=8192, directory_size=96),
    )
    header = attrs.evolve(header, autoclear=1)
    data = extension.build(header, kept)
    again = parse_fields(data)
    assert again.unknown == header.unknown
    assert extension.parse(again, data) == attrs.evolve(kept, backing_file=None)
    assert extension.backing_name(again, data) == "über/base"


def test_names_may_be_any_bytes() -> None:
    name = os.fsdecode(b"\xff\xfe/\x80")
    data = extension.build(Header(cluster_bits=9), Extensions(backing_file=name))
    assert extension.backing_name(parse_fields(data), data) == name


def test_a_header_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BlockyardError, match="No space left on device"):
        extension.build(Header(cluster_bits=9), Extensions(backing_file="x" * 400))


def test_the_backing_files_name_ends_with_the_cluster() -> None:
    header = Header(cluster_bits=9, backing_offset=500, backing_size=13)
    with pytest.raises(BlockyardError, match=r"^Backing file name too long$"):
        extension.backing_name(header, bytes(512))
    header = Header(cluster_bits=16, backing_offset=500, backing_size=1024)
    with pytest.raises(BlockyardError, match=r"^Backing file name too long$"):
        extension.backing_name(header, bytes(2048))


def test_features_are_refused_by_the_names_that_the_image_has() -> None:
    table = b"".join(
        struct.pack(">BB46s", kind, bit, name)
        for kind, bit, name in (
            (0, 5, b"five"), (1, 6, b"compatible"), (0, 63, b"x" * 46), (0, 99, b"beyond")
        )
    )  # fmt: skip
    table += b"\0\x08cut off"
    bits = 1 << 5 | 1 << 6 | 1 << 8 | 1 << 63
    header = Header(cluster_bits=12, incompatible=bits | 1, length=112)
    data = header.pack() + struct.pack(">II", extension.FEATURE_TABLE, len(table)) + table
    with pytest.raises(BlockyardError) as caught:
        extension.refuse_unknown_features(header, data)
    assert str(caught.value) == (
        f"Unsupported qcow2 feature(s): five, {'x' * 46}, cut off, Unknown incompatible feature: 40"
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"incompatible": 2}, "qcow2: Image is corrupt; cannot be opened read/write"),
        ({"size": 1 << 62}, "L1 table is too small"),
        ({"size": (1 << 64) - 1}, "Could not refresh total sector count: File too large"),
        ({"reftable_clusters": 0}, "Image does not contain a reference count table"),
        ({"reftable_clusters": 1 << 31}, "Reference count table too large"),
        ({"reftable_offset": 1}, "Reference count table offset invalid"),
        ({"snapshots": 65537}, "Snapshot table too large"),
        ({"l1_size": 0}, "L1 table is too small"),
        ({"refcount_order": 7}, "Reference count entry width too large; may not exceed 64 bits"),
    ],
)
def test_fields_out_of_range(fields: dict[str, int], text: str) -> None:
    good = Header(reftable_clusters=1, l1_size=1 << 22, size=1 << 20, cluster_bits=21)
    check_fields(good, writable=True)
    bad = attrs.evolve(good, **fields)
    with pytest.raises(BlockyardError) as caught:
        refuse(bad)
    assert str(caught.value) == text


def refuse(header: Header) -> None:
    check_fields(header, writable=True)
    check_size(header)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=4096), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, writable: bool) -> None:
    for version in (b"\0\0\0\2", b"\0\0\0\3"):
        image = b"QFI\xfb" + version + data
        assert 0 <= cluster_bytes(image) <= 2 << 20
        with suppress(BlockyardError):
            parse_header(image, writable=writable)


def test_many_small_extensions_take_no_long_time() -> None:
    header = Header(cluster_bits=21, length=112)
    data = header.pack() + struct.pack(">II", 9, 0) * 250000
    assert len(extension.parse(header, data).unknown) == 250000


def test_bad_headers_are_refused_as_qemu_does(tmp_path: Path, qemu_img: Any, peer: Any) -> None:
    """Random changes to headers; the refusals are compared word for word."""
    sources = []
    for kind, options in KINDS.items():
        sources.append(tmp_path / kind)
        qemu_img("create", "-q", "-f", "qcow2", "-o", options, sources[-1], "4M")
    sources.append(tmp_path / "bitmap")
    qemu_img("create", "-q", "-f", "qcow2", sources[-1], "4M")
    qemu_img("bitmap", "--add", sources[-1], "b0")
    rnd = random.Random(1)
    image = tmp_path / "image"
    compared = set()
    for _ in range(400):
        source = rnd.choice(sources)
        image.write_bytes(mutated(source.read_bytes(), rnd))
        ours = refusal(start(image))
        file = {"driver": "file", "filename": str(image)}
        theirs = peer.refusal(driver="qcow2", file=file, backing=None, **{"read-only": True})
        if ours is None:
            # What is behind the header is another's to judge.
            continue
        assert ours == theirs, (source.name, image.read_bytes()[:112].hex())
        compared.add(ours.partition(":")[0])
    assert len(compared) > 12


def mutated(data: bytes, rnd: random.Random) -> bytes:
    raw = bytearray(data)
    end = struct.unpack_from(">I", raw, 100)[0] if raw[7] == 3 else 72
    for _ in range(rnd.choice([1, 1, 2, 3])):
        at, width = rnd.choice([*FIELDS, (end + 4 * rnd.randrange(24), 4)])
        value = rnd.choice([*VALUES, rnd.getrandbits(8), rnd.getrandbits(8 * width)])
        if rnd.random() < 0.3:
            value = int.from_bytes(raw[at : at + width], "big") ^ 1 << rnd.randrange(8 * width)
        raw[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "big")
    return bytes(raw)


def refusal(data: bytes) -> str | None:
    try:
        found = parse_header(data, writable=False)
    except BlockyardError as error:
        return str(error)
    assert found.header.crypt_method in (0, 1, 2)
    return None
