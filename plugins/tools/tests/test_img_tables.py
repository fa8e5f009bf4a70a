# SPDX-License-Identifier: Apache-2.0
"""Our img prints what qemu-img prints, and ends as it does."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from sidebyside import differences, shown, table


def _shell(folder: Path, script: str) -> None:
    subprocess.run(["sh", "-ec", script], cwd=folder, check=True, capture_output=True)


def _raw_and_overlay(folder: Path) -> None:
    _shell(
        folder,
        "truncate -s 1M r.img; mkdir dd; qemu-img create -q -f qcow2 -b ../r.img -F raw dd/x",
    )


def _many_images(folder: Path) -> None:
    _raw_and_overlay(folder)
    _shell(
        folder,
        """
        key='--object secret,id=s,data=a'
        qemu-img create -f qcow2 -b r.img -F raw q.qcow2
        for i in 1 2 3; do qemu-img snapshot -c "snap $i" q.qcow2; done
        qemu-img bitmap --add q.qcow2 b0
        qemu-img bitmap --add --disable -g 128k q.qcow2 b1
        qemu-img create -f qcow2 -b q.qcow2 -F qcow2 -o data_file=d.raw q2.qcow2
        opts=encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10
        qemu-img create $key -f qcow2 -o $opts lq.qcow2 1M
        qemu-img create $key -f luks -o key-secret=s,iter-time=10 l.luks 1M
        qemu-img create -f qcow2 loop.qcow2 1M
        qemu-img rebase -u -b loop.qcow2 -F qcow2 loop.qcow2
        qemu-img create -f qcow2 corrupt.qcow2 1M
        printf '\\002' | dd of=corrupt.qcow2 bs=1 seek=79 conv=notrunc
        qemu-img create -f qcow2 -o lazy_refcounts=on dirty.qcow2 1M
        printf '\\001' | dd of=dirty.qcow2 bs=1 seek=79 conv=notrunc
        """,
    )


def test_create(tmp_path: Path) -> None:
    found = differences(tmp_path, _raw_and_overlay, table("create"))
    assert not found, shown(found)


def test_info(tmp_path: Path) -> None:
    found = differences(tmp_path, _many_images, table("info"))
    assert not found, shown(found)


def _mapped_images(folder: Path) -> None:
    _many_images(folder)
    _shell(
        folder,
        """
        touch e.img
        qemu-img create -f qcow2 m0.q 4M
        qemu-io -c 'write 0 1M' -c 'write -z 2M 64k' -c 'write -c 3M 64k' m0.q
        qemu-img create -f qcow2 -b m0.q -F qcow2 m1.q 6M
        qemu-io -c 'write 128k 64k' -c 'write -zu 1M 128k' -c 'write 5M 64k' m1.q
        qemu-img create -f qcow2 rq.q 1M
        qemu-img create -f qcow2 s.q 1M
        qemu-img create -f qcow2 -o compat=0.10 v2.q 1M
        qemu-img create -f qcow2 b.q 10M
        qemu-img create -f qcow2 b2.q 10M
        truncate -s 1M rs.img
        """,
    )


def test_map(tmp_path: Path) -> None:
    found = differences(tmp_path, _mapped_images, table("map"))
    assert not found, shown(found)


def test_resize_snapshot_and_check(tmp_path: Path) -> None:
    found = differences(tmp_path, _mapped_images, table("change"))
    assert not found, shown(found)


def test_bitmap_and_measure(tmp_path: Path) -> None:
    found = differences(tmp_path, _mapped_images, table("bitmap"))
    assert not found, shown(found)


def test_amend(tmp_path: Path) -> None:
    found = differences(tmp_path, _mapped_images, table("amend"))
    assert not found, shown(found)
