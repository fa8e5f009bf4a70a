# SPDX-License-Identifier: Apache-2.0
"""Options of opening: their arithmetic, and what is refused, compared with QEMU's."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from blockyard.errors import BlockyardError
from blockyard.schema import visit
from blockyard.schema.block import BlockdevOptions
from blockyard_formats_qcow2.header import Header
from blockyard_formats_qcow2.options import cache_sizes, overlap_bits, resolve
from blockyard_formats_qcow2.reading import parse_header
from blockyard_formats_qcow2.schema import BlockdevOptionsQcow2

if TYPE_CHECKING:
    from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def given(**options: Any) -> Any:
    dashed = {name.replace("_", "-"): value for name, value in options.items()}
    return visit(BlockdevOptionsQcow2, {"file": "f", **dashed})


@pytest.mark.parametrize(
    ("options", "size", "sizes"),
    [
        # docs/qcow2-cache.txt: 8 bytes of L2 for each cluster, and at least 4 blocks.
        ({}, 8 * GIB, (MIB, 256 * KIB, 64 * KIB)),
        ({}, 1 << 40, (32 * MIB, 256 * KIB, 64 * KIB)),
        ({}, 0, (128 * KIB, 256 * KIB, 64 * KIB)),
        ({"l2_cache_size": 4 * MIB}, 1 << 40, (4 * MIB, 256 * KIB, 64 * KIB)),
        ({"l2_cache_size": 1}, 1 << 40, (128 * KIB, 256 * KIB, 64 * KIB)),
        ({"l2_cache_entry_size": 4096}, 8 * GIB, (MIB, 256 * KIB, 4 * KIB)),
        ({"cache_size": 2 * MIB}, 8 * GIB, (MIB, MIB, 64 * KIB)),
        ({"cache_size": MIB}, 8 * GIB, (768 * KIB, 256 * KIB, 64 * KIB)),
        ({"cache_size": 2 * MIB, "l2_cache_size": 512 * KIB}, GIB, (128 * KIB, 1920 * KIB, 65536)),
        ({"cache_size": 2 * MIB, "refcount_cache_size": MIB}, 8 * GIB, (MIB, MIB, 64 * KIB)),
    ],
)  # fmt: skip
def test_cache_sizes(options: Any, size: int, sizes: tuple[int, int, int]) -> None:
    assert cache_sizes(given(**options), Header(size=size)) == sizes


def test_overlap_checks() -> None:
    assert overlap_bits(None) == overlap_bits("cached") == 0x17F
    assert overlap_bits("none") == 0
    assert overlap_bits("constant") == 0x12B
    assert overlap_bits("all") == 0x1FF
    flags = given(overlap_check={"template": "constant", "active-l2": True, "main-header": False})
    assert overlap_bits(flags.overlap_check) == 0x12E
    assert overlap_bits(given(overlap_check={"inactive-l2": True}).overlap_check) == 0x1FF


@pytest.mark.parametrize(
    ("options", "unmap", "bits"),
    [
        ({}, False, 0b01010),
        ({}, True, 0b01110),
        ({"pass_discard_request": True, "pass_discard_snapshot": False}, False, 0b00110),
        ({"pass_discard_request": False, "pass_discard_other": True}, True, 0b11010),
    ],
)
def test_which_freed_clusters_are_discarded(options: Any, unmap: bool, bits: int) -> None:
    assert resolve(given(**options), Header(), unmap=unmap).pass_discard == bits


def test_lazy_refcounts_are_as_the_image_says() -> None:
    assert resolve(given(), Header(compatible=1), unmap=False).lazy_refcounts
    assert not resolve(given(), Header(), unmap=False).lazy_refcounts
    off = given(lazy_refcounts=False)
    assert not resolve(off, Header(compatible=1), unmap=False).lazy_refcounts


def test_options_are_refused_as_qemu_does(tmp_path: Path, qemu_img: Any, peer: Any) -> None:
    """Random options, on images of each kind; the refusals are compared word for word."""
    images = []
    for number, kind in enumerate(
        ("compat=0.10", "compat=1.1", "cluster_size=2M", "extended_l2=on")
    ):
        images.append(tmp_path / f"image{number}")
        qemu_img("create", "-q", "-f", "qcow2", "-o", kind, images[-1], "4M")
    rnd = random.Random(2)
    compared = set()
    for _ in range(300):
        image, options = rnd.choice(images), some_options(rnd)
        ours = refusal(image, options)
        if ours is not None:
            file = {"driver": "file", "filename": str(image)}
            assert ours == peer.refusal(driver="qcow2", file=file, **options), options
            compared.add(ours)
    assert len(compared) > 12


def test_reopening_is_refused_in_qemus_order(
    tmp_path: Path, qemu_img: Any, peer: Any, place: Any
) -> None:
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "base", "1M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", tmp_path / "top")
    node: dict[str, Any] = {
        "driver": "qcow2",
        "node-name": "top",
        "file": {"driver": "file", "filename": str(tmp_path / "top")},
    }
    luks = {"encrypt": {"format": "luks", "key-secret": "s"}}
    tried = [
        luks, {"encrypt": {"format": "aes"}}, {**luks, "lazy-refcounts": True}, {},
        {"lazy-refcounts": True}, {"l2-cache-entry-size": 3}, {**luks, "backing": None},
        {"cache-size": 1, "l2-cache-size": 2},
    ]  # fmt: skip
    file = {**node["file"], "locking": "off"}
    assert peer.ask("blockdev-add", **{**node, "file": file}) == {}
    theirs = [
        peer.ask("blockdev-reopen", options=[{**node, "file": file, **more}]) for more in tried
    ]
    assert peer.ask("blockdev-del", **{"node-name": "top"}) == {}
    with place.open({**node, "file": file}):
        for more, expected in zip(tried, theirs, strict=True):
            options = visit(BlockdevOptions, {**node, "file": file, **more})
            with pytest.raises(BlockyardError) as caught:
                place.ask(place.yard.graph.reopen, [options])
            assert f"error:{caught.value}" == expected, more


def some_options(rnd: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name in ("cache-size", "l2-cache-size", "l2-cache-entry-size", "refcount-cache-size"):
        if rnd.random() < 0.35:
            values = [0, 1, 512, 1000, 4096, 65537, MIB, 4 * MIB, 32 * MIB, -1, -(1 << 63)]
            options[name] = rnd.choice(values)
    if rnd.random() < 0.2:
        options["cache-clean-interval"] = rnd.choice([0, 600, (1 << 32) - 1, 1 << 32, -1])
    for name in ("lazy-refcounts", "discard-no-unref"):
        if rnd.random() < 0.2:
            options[name] = rnd.random() < 0.7
    if rnd.random() < 0.2:
        options["encrypt"] = {"format": rnd.choice(["aes", "luks"])}
    return options


def refusal(image: Path, options: dict[str, Any]) -> str | None:
    visited = visit(BlockdevOptionsQcow2, {"file": "f", **options})
    try:
        parse_header(image.read_bytes(), writable=True, options=visited)
    except BlockyardError as error:
        return str(error)
    return None
