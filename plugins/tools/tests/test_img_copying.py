# SPDX-License-Identifier: Apache-2.0
"""The commands that move data do what qemu-img's do, and leave what they leave."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sidebyside import differences, ours, shown, table

KEY = ["--object", "secret,id=s,data=a"]


def _shell(folder: Path, script: str) -> str:
    done = subprocess.run(
        ["sh", "-ec", script], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


def _images(folder: Path) -> None:
    """Data, holes and zeroes in raw and qcow2, in one layer, two and three."""
    _shell(
        folder,
        """
        qemu-img create -f raw a.raw 1M
        qemu-io -f raw -c "write -P 1 0 300k" -c "write -P 2 500k 3k" -c "write -P 0 600k 90k" \
            -c "write -P 5 1020k 4k" a.raw
        qemu-img convert -f raw -O qcow2 a.raw a.q
        qemu-img create -f qcow2 -b a.q -F qcow2 b.q
        qemu-io -c "write -P 3 64k 64k" -c "write -z 128k 64k" -c "write -P 9 700k 1k" b.q
        qemu-img create -f qcow2 -b b.q -F qcow2 c.q 1536k
        qemu-io -c "write -P 4 1100k 64k" -c "write -P 6 70k 1k" c.q
        qemu-img snapshot -c first c.q
        qemu-img bitmap --add -g 128k c.q b0
        qemu-io -c "write -P 8 200k 64k" c.q
        qemu-img convert -O raw c.q copy.raw
        # Without holes in the files, which a filesystem may fill later.
        for i in a b c; do cat $i.q > t; mv t $i.q; done
        truncate -s 1M empty.raw
        qemu-img create -f qcow2 empty.q 1M
        qemu-img create -f raw short.raw 512k
        """,
    )


@pytest.mark.parametrize("name", ["convert", "compare", "commit", "rebase", "dd", "bench"])
def test_texts_and_statuses(name: str, tmp_path: Path) -> None:
    found = differences(tmp_path, _images, table(name))
    assert not found, shown(found)


def _run(folder: Path, *words: str) -> None:
    outcome = ours(folder, list(words))
    assert (outcome.status, outcome.errors) == (0, "")


def _map(folder: Path, name: str, *more: str) -> list[Any]:
    """What is where, without the places in the file.

    Which zeroes lie in an allocated cluster as holes of the file is the driver's.
    """
    text = _shell(folder, f"qemu-img map --output=json {' '.join(more)} {name}")
    extents: list[dict[str, Any]] = []
    for each in json.loads(text):
        each.pop("offset", None)
        each["zero"] = each["zero"] and not each["data"]
        last = extents[-1] if extents else {}
        if last and {**last, "start": 0, "length": 0} == {**each, "start": 0, "length": 0}:
            last["length"] += each["length"]
        else:
            extents.append(each)
    return extents


@pytest.mark.parametrize(
    "options",
    [
        "-O raw",
        "-O raw -S 0",
        "-O raw -S 64k",
        "-O raw -C",
        "-O raw -W -m 3",
        "-O qcow2",
        "-O qcow2 -S 0",
        "-O qcow2 -o cluster_size=4k",
        "-O qcow2 -o cluster_size=2M",
        "-O qcow2 -o extended_l2=on",
        "-O qcow2 -o compat=0.10",
        "-O qcow2 -o preallocation=metadata",
        "-O qcow2 -c",
        "-O qcow2 -c -W",
        "-O qcow2 -c -o compression_type=zstd,cluster_size=4k",
        "-O qcow2 -c -o cluster_size=2M",
        "-O qcow2 -o data_file=data",
        "-l first -O qcow2",
        "-l 1 -O raw",
        "-l snapshot.name=first -O raw",
        "-B b.q -F qcow2 -O qcow2",
        "-B b.q -F qcow2 -O qcow2 -c",
    ],
)
def test_what_convert_leaves(options: str, tmp_path: Path) -> None:
    _images(tmp_path)
    words = options.split()
    fmt = words[words.index("-O") + 1]
    _shell(tmp_path, f"qemu-img convert {options.replace('=data', '=data2')} c.q theirs")
    _run(tmp_path, "convert", *words, "c.q", "ours")
    _shell(tmp_path, f"qemu-img compare -f {fmt} -F {fmt} ours theirs")
    if fmt == "qcow2":
        _shell(tmp_path, "qemu-img check ours")
    # What the drivers copy by themselves is in the pieces that they like.
    if "-C" not in words:
        assert _map(tmp_path, "ours", "-f", fmt) == _map(tmp_path, "theirs", "-f", fmt)


@pytest.mark.parametrize("sparse", ["1k", "4k", "8k", "0"])
@pytest.mark.parametrize("compress", [[], ["-c"]])
def test_zeroes_are_holes_where_qemu_leaves_them(
    sparse: str, compress: list[str], tmp_path: Path
) -> None:
    _shell(
        tmp_path,
        """
        qemu-img create -f qcow2 -o cluster_size=1k c.q 1M
        qemu-io -c "write -P 0 0 64k" -c "write 0 1k" -c "write 8k 1k" -c "write 17k 1k" \
            -c "write -P 0 65k 1k" -c "write -P 0 80k 2k" -c "write 90k 2560" c.q
        """,
    )
    words = ["-O", "qcow2", "-o", "cluster_size=1k", "-S", sparse, *compress, "c.q"]
    _shell(tmp_path, f"qemu-img convert {' '.join(words)} theirs")
    _run(tmp_path, "convert", *words, "ours")
    _shell(tmp_path, "qemu-img compare ours theirs; qemu-img check ours")
    assert _map(tmp_path, "ours") == _map(tmp_path, "theirs")


@pytest.mark.parametrize("fmt", ["luks", "qcow2"])
def test_encrypted_images(fmt: str, tmp_path: Path) -> None:
    _images(tmp_path)
    prefix = "" if fmt == "luks" else "encrypt."
    options = f"{prefix}key-secret=s,{prefix}iter-time=10"
    options += "" if fmt == "luks" else ",encrypt.format=luks"
    _run(tmp_path, "convert", *KEY, "-O", fmt, "-o", options, "c.q", "secret")
    opened = f"driver={fmt},{prefix}key-secret=s,file.filename=secret"
    opened += "" if fmt == "luks" else ",encrypt.format=luks"
    key = " ".join(KEY)
    _shell(tmp_path, f"qemu-img convert {key} --image-opts {opened} -O raw back.raw")
    _run(tmp_path, "convert", *KEY, "--image-opts", "-O", "raw", opened, "again.raw")
    _shell(tmp_path, "cmp back.raw copy.raw; cmp again.raw copy.raw")


def test_images_are_joined(tmp_path: Path) -> None:
    _images(tmp_path)
    _run(tmp_path, "convert", "-O", "qcow2", "-c", "short.raw", "a.q", "c.q", "joined")
    _shell(
        tmp_path,
        """
        qemu-img convert -O raw short.raw a.q c.q joined.raw
        qemu-img compare joined joined.raw
        qemu-img check joined
        """,
    )


def test_bitmaps_are_copied(tmp_path: Path) -> None:
    _images(tmp_path)
    _run(tmp_path, "convert", "--bitmaps", "-O", "qcow2", "c.q", "ours")
    _shell(tmp_path, "qemu-img convert --bitmaps -O qcow2 c.q theirs")
    found = [
        json.loads(_shell(tmp_path, f"qemu-img info --output=json {name}"))
        for name in ("ours", "theirs")
    ]
    bitmaps = [each["format-specific"]["data"]["bitmaps"] for each in found]
    assert bitmaps[0] == bitmaps[1]
    assert [each["name"] for each in bitmaps[0]] == ["b0"]


@pytest.mark.parametrize("zero", [True, False])
def test_a_target_that_exists_is_overwritten(zero: bool, tmp_path: Path) -> None:
    _images(tmp_path)
    _shell(tmp_path, "qemu-img create -f qcow2 target 2M")
    if not zero:
        _shell(tmp_path, "qemu-io -c 'write -P 77 0 2M' target")
    flag = ["--target-is-zero"] if zero else []
    _run(tmp_path, "convert", "-n", *flag, "-O", "qcow2", "a.q", "target")
    _run(tmp_path, "convert", "-n", *flag, "-O", "qcow2", "a.q", "target")
    _shell(tmp_path, "qemu-img check target")
    _run(tmp_path, "dd", "bs=1M", "count=1", "-O", "raw", "-f", "qcow2", "if=target", "of=part")
    _shell(tmp_path, "cmp part a.raw")


def test_unreadable_sectors_become_zeroes(tmp_path: Path) -> None:
    _images(tmp_path)
    (tmp_path / "rules").write_text(
        '[inject-error]\nevent = "read_aio"\nerrno = "5"\nsector = "0x10"\n'
    )
    source = "blkdebug:rules:a.raw"
    outcome = ours(tmp_path, ["convert", "-f", "raw", "-O", "raw", "--salvage", source, "out"])
    text = "qemu-img: warning: error while reading offset 8192: Input/output error\n"
    assert (outcome.status, outcome.errors) == (0, text)
    data = (tmp_path / "out").read_bytes()
    assert data[8192:8704] == bytes(512)
    assert data[:8192] == b"\1" * 8192


def test_errors_tell_where(tmp_path: Path) -> None:
    _images(tmp_path)
    (tmp_path / "rules").write_text('[inject-error]\nevent = "read_aio"\nerrno = "5"\n')
    source = "blkdebug:rules:a.raw"
    outcome = ours(tmp_path, ["convert", "-f", "raw", "-O", "raw", source, "out"])
    text = "qemu-img: error while reading at byte 0: Input/output error\n"
    assert (outcome.status, outcome.errors) == (1, text)
    outcome = ours(tmp_path, ["compare", "-f", "raw", "-F", "qcow2", source, "a.q"])
    text = f"qemu-img: Error while reading offset 0 of {source}: Input/output error\n"
    assert (outcome.status, outcome.errors) == (4, text)


def test_a_pipe_gets_the_error_before_the_warning_of_sizes(tmp_path: Path) -> None:
    _images(tmp_path)
    _shell(tmp_path, "qemu-img create -q -f qcow2 tiny.q 0")
    (tmp_path / "rules").write_text('[inject-error]\nevent = "read_aio"\nerrno = "5"\n')
    words = ["compare", "blkdebug:rules:a.q", "tiny.q"]
    programs = [
        ["qemu-img"],
        [sys.executable, "-c", "from blockyard_tools.programs import img; img()"],
    ]
    outputs = [
        subprocess.run(
            [*program, *words],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        ).stdout
        for program in programs
    ]
    assert b"size mismatch" in outputs[0]
    assert outputs[1] == outputs[0]


def test_progress_is_told(tmp_path: Path) -> None:
    _images(tmp_path)
    outcome = ours(tmp_path, ["convert", "-p", "-O", "raw", "c.q", "out"])
    numbers = [float(n) for n in re.findall(r" {4}\((\d+\.\d\d)/100%\)\r", outcome.output)]
    assert numbers[0] == 0
    assert numbers[-1] == 100
    assert numbers == sorted(numbers)
    assert outcome.output.endswith("\r\n")


def test_commit_leaves_what_qemu_leaves(tmp_path: Path) -> None:
    maps = []
    for who in ("ours", "theirs"):
        folder = tmp_path / who
        folder.mkdir()
        _images(folder)
        if who == "ours":
            _run(folder, "commit", "-q", "c.q")
        else:
            _shell(folder, "qemu-img commit -q c.q")
        _shell(folder, "qemu-img check b.q; qemu-img check c.q; qemu-img compare c.q copy.raw")
        _shell(folder, "qemu-img bitmap --remove c.q b0; qemu-img snapshot -a first c.q")
        _shell(folder, "qemu-img check c.q")
        maps.append(_map(folder, "c.q"))
    assert maps[0] == maps[1]


@pytest.mark.parametrize("backing", ["a.q", "empty.q", "short.raw", ""])
@pytest.mark.parametrize("compress", [[], ["-c"]])
def test_rebased_images_show_the_same(backing: str, compress: list[str], tmp_path: Path) -> None:
    _images(tmp_path)
    fmt = ["-F", "raw" if backing.endswith("raw") else "qcow2"] if backing else []
    _run(tmp_path, "rebase", *compress, "-b", backing, *fmt, "c.q")
    _shell(tmp_path, "qemu-img compare c.q copy.raw; qemu-img check c.q")
    recorded = json.loads(_shell(tmp_path, "qemu-img info --output=json c.q"))
    assert recorded.get("backing-filename", "") == backing


def test_bench_runs(tmp_path: Path) -> None:
    _images(tmp_path)
    words = "bench -w -c 10 -d 2 --pattern 3 --flush-interval 2 -s 1k -f raw empty.raw"
    outcome = ours(tmp_path, words.split())
    first = "Sending 10 write requests, 1024 bytes each, 2 in parallel "
    first += "(starting at offset 0, step size 1024)\nSending flush every 2 requests\n"
    assert outcome.output.startswith(first)
    assert re.search(r"Run completed in \d+\.\d{3} seconds\.\n$", outcome.output)
    assert (tmp_path / "empty.raw").read_bytes()[:10241] == b"\3" * 10240 + b"\0"
