# SPDX-License-Identifier: Apache-2.0
"""What reads leave behind, next to what they leave behind under a real daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

IMG = os.environ.get("BLOCKYARD_QEMU_IMG", "qemu-img")
IO = os.environ.get("BLOCKYARD_QEMU_IO", "qemu-io")
KIB, MIB = 1 << 10, 1 << 20
SIZE = 4 * MIB + 512


def run(*words: object) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A folder with base.qcow2, mid.qcow2 and top.qcow2."""
    base, mid, top = (tmp_path / f"{name}.qcow2" for name in ("base", "mid", "top"))
    run(IMG, "create", "-q", "-f", "qcow2", base, SIZE)
    run(IMG, "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", mid)
    run(IMG, "create", "-q", "-f", "qcow2", "-b", mid, "-F", "qcow2", top)
    run(IO, "-c", f"write -P 1 0 {2 * MIB}", "-c", f"write -P 9 {4 * MIB} 512", base)
    run(IO, "-c", "write -P 2 512k 256k", "-c", "write -z 1M 128k", mid)
    run(IO, "-c", "write -P 3 640k 64k", top)
    return tmp_path


def image(folder: Path, name: str, below: str | None = None) -> dict[str, Any]:
    return {
        "driver": "qcow2",
        "node-name": name,
        "file": {"driver": "file", "filename": str(folder / f"{name}.qcow2")},
        "backing": below,
    }


def filter_node(**more: Any) -> dict[str, Any]:
    return {"driver": "copy-on-read", "node-name": "cor", "file": "top", **more}


def nodes(folder: Path, **more: Any) -> list[dict[str, Any]]:
    return [
        image(folder, "base"),
        image(folder, "mid", "base"),
        image(folder, "top", "mid"),
        filter_node(**more),
    ]


READS = [(100, 1000), (500 * KIB, 300 * KIB), (MIB, 64 * KIB), (2 * MIB, 4096), (4 * MIB, 512)]


def left_behind(folder: Path) -> tuple[Any, bytes]:
    run(IMG, "check", "-q", folder / "top.qcow2")
    found = json.loads(run(IMG, "map", "--output=json", folder / "top.qcow2"))
    kept = []
    for each in found:
        kind = (each["depth"], each["zero"], each["data"])
        # Neighbours that lie apart in the file count as one.
        if not kept or kept[-1][1] != kind:
            kept.append((each["start"], kind))
    run(IMG, "convert", "-O", "raw", folder / "top.qcow2", folder / "whole")
    return kept, (folder / "whole").read_bytes()


def read_by_peer(folder: Path, **more: Any) -> None:
    base, mid, top, node = nodes(folder, **more)
    whole = {**node, "file": {**top, "backing": {**mid, "backing": base}}}
    asked = [word for at, size in READS for word in ("-c", f"read {at} {size}")]
    run(IO, *asked, f"json:{json.dumps(whole)}")


@pytest.mark.parametrize("bottom", [None, "base", "mid"])
def test_reads_leave_behind_what_they_do_in_a_real_daemon(
    chain: Path, tmp_path_factory: pytest.TempPathFactory, ours: Any, bottom: str | None
) -> None:
    theirs = tmp_path_factory.mktemp("theirs")
    for each in chain.glob("*.qcow2"):
        shutil.copy(each, theirs)
    for name, below in (("mid", "base"), ("top", "mid")):
        where = (theirs / f"{name}.qcow2", theirs / f"{below}.qcow2")
        run(IMG, "rebase", "-u", "-F", "qcow2", "-b", where[1], where[0])
    more = {} if bottom is None else {"bottom": bottom}
    before = left_behind(chain)
    read_by_peer(theirs, **more)

    async def read() -> None:
        disk = await ours.yard.attach("cor", writable=False)
        for at, size in READS:
            assert await disk.read(at, size) == before[1][at : at + size]
        await disk.close()

    assert ours.answers([("blockdev-add", each) for each in nodes(chain, **more)]) == [{}] * 4
    ours.call(read)
    ours.answers([("blockdev-del", {"node-name": n}) for n in ("cor", "top", "mid", "base")])
    after = left_behind(chain)
    assert after == left_behind(theirs)
    assert after[1] == before[1]
    assert after[0] != before[0]


def test_nothing_comes_from_below_the_bottom(chain: Path, ours: Any) -> None:
    """As documented; a real daemon copies everything when the top is the bottom."""
    before = left_behind(chain)
    ours.answers([("blockdev-add", each) for each in nodes(chain, bottom="top")])

    async def read() -> None:
        disk = await ours.yard.attach("cor", writable=False)
        assert await disk.read(0, SIZE) == before[1]
        await disk.close()

    ours.call(read)
    ours.answers([("blockdev-del", {"node-name": n}) for n in ("cor", "top", "mid", "base")])
    assert left_behind(chain) == before


def test_a_prefetch_copies_without_reading(chain: Path, ours: Any) -> None:
    ours.answers([("blockdev-add", each) for each in nodes(chain)])

    async def prefetch() -> None:
        disk = await ours.yard.attach("cor", writable=False)
        await disk.prefetch(0, 2 * MIB)
        await disk.close()

    ours.call(prefetch)
    ours.answers([("blockdev-del", {"node-name": n}) for n in ("cor", "top", "mid", "base")])
    (first, *_), _ = left_behind(chain)
    assert first == (0, (0, False, True))


COR = {"driver": "copy-on-read", "node-name": "cor"}
NULL = {"driver": "null-co", "size": 65536}


def add(**options: Any) -> tuple[str, dict[str, Any]]:
    return "blockdev-add", {name.replace("_", "-"): value for name, value in options.items()}


def delete(name: str) -> tuple[str, dict[str, Any]]:
    return "blockdev-del", {"node-name": name}


def test_bottoms_are_what_a_real_daemon_takes(chain: Path, same: Any) -> None:
    base, mid, top, _ = nodes(chain)
    throttle = {"driver": "throttle", "throttle-group": "g", "node-name": "th", "file": "base"}
    same(
        [
            *(add(**each) for each in (base, mid, top)),
            ("object-add", {"qom-type": "throttle-group", "id": "g"}),
            add(**throttle),
            add(**filter_node(bottom="th")),
            add(**filter_node(bottom="nobody")),
            add(**filter_node(bottom="")),
            add(**filter_node(bottom="top")),
            delete("cor"),
            add(**filter_node(bottom="base")),
            ("blockdev-reopen", {"options": [{**top, "backing": "base"}]}),
            ("blockdev-reopen", {"options": [{**mid, "backing": None}]}),
            ("blockdev-reopen", {"options": [filter_node()]}),
            delete("mid"),
            ("block_resize", {"node-name": "cor", "size": 8 * MIB}),
            delete("cor"),
            ("blockdev-reopen", {"options": [{**top, "backing": "base"}]}),
        ]
    )


def test_images_that_cannot_be_written_are_refused_as_by_a_real_daemon(same: Any) -> None:
    same(
        [
            add(**COR, file={**NULL, "read-only": True}),
            add(**COR, file=NULL, read_only=True),
            add(**COR, file=NULL, bottom="cor"),
            add(**COR, file={**NULL, "node-name": "n"}, bottom="n"),
            delete("cor"),
        ]
    )


def test_a_bottom_elsewhere_is_refused(chain: Path, ours: Any) -> None:
    """Where a real daemon looks for it for ever."""
    *chained, _ = nodes(chain)
    ours.answers([add(**each) for each in (*chained, {**NULL, "node-name": "n"})])
    (refusal,) = ours.answers([add(**filter_node(bottom="n"))])
    assert refusal == "Bottom node 'n' is not in the chain of 'top'"
    assert not ours.yard.graph.find("top").parents
