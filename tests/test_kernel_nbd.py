# SPDX-License-Identifier: Apache-2.0
"""`blockyard nbd -c` and `-d`: disks for the kernel's own NBD client, in an emulated machine."""

import struct
import subprocess
import sysconfig
from pathlib import Path

PROGRAM = Path(sysconfig.get_path("scripts"), "blockyard-nbd")
MODULES = ("nbd", "ext4")

#: Shell functions that every script begins with.
_SETUP = """
set -ex
exec 2>&1
nbd={program}
gone() {{  # a device that nobody serves has no size
    test "$(cat /sys/block/$1/size)" = 0 -a ! -e /sys/block/$1/pid
}}
ended() {{  # a program has ended and let go of its socket
    for _ in $(seq 300); do kill -0 $1 2>/dev/null || return 0; sleep 0.1; done
    return 1
}}
"""


def script(text, **values):
    return _SETUP.format(program=PROGRAM) + text.format(**values)


def qcow2(guest, size="64M", name="disk.qcow2"):
    """An image in the shared folder, made before the machine starts."""
    path = guest.folder / name
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, size], check=True)
    return path


def partition_table(start, sectors):
    """A first sector with one partition of Linux's."""
    entry = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + struct.pack("<II", start, sectors)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def check(path):
    subprocess.run(["qemu-img", "check", "-q", path], check=True)


def test_a_file_system_lives_through_a_remount(guest):
    image = qcow2(guest)
    text = """
        $nbd -c /dev/nbd0 -f qcow2 --pid-file=/run/pid --discard=unmap disk.qcow2
        pid=$(cat /run/pid)
        test $(cat /sys/block/nbd0/size) = 131072
        mkfs.ext4 -q /dev/nbd0
        mkdir /mnt/disk && mount /dev/nbd0 /mnt/disk
        mkdir /mnt/disk/sub
        head -c 9000000 /dev/urandom >/mnt/disk/sub/large
        for i in $(seq 200); do echo $i >/mnt/disk/sub/$i; done
        rm /mnt/disk/sub/1*
        (cd /mnt/disk && find . -type f -exec sha256sum {{}} + | sort >/share/before)
        umount /mnt/disk
        fsck.ext4 -fn /dev/nbd0
        mount /dev/nbd0 /mnt/disk
        (cd /mnt/disk && find . -type f -exec sha256sum {{}} + | sort >/share/after)
        umount /mnt/disk
        $nbd -d /dev/nbd0
        ended $pid
        gone nbd0
        test ! -e /var/lock/qemu-nbd-nbd0

        # Once more from the image, as another program and by several connections.
        $nbd -c /dev/nbd0 -r -e 2 -f qcow2 disk.qcow2
        test "$(cat /sys/block/nbd0/ro)" = 1
        mount -o ro,noload /dev/nbd0 /mnt/disk
        (cd /mnt/disk && find . -type f -exec sha256sum {{}} + | sort >/share/later)
        umount /mnt/disk
        $nbd -d /dev/nbd0
        gone nbd0
    """
    guest.run(script(text), modules=MODULES).check()
    before = (guest.folder / "before").read_text()

    assert len(before.splitlines()) == 90
    assert (guest.folder / "after").read_text() == before
    assert (guest.folder / "later").read_text() == before
    check(image)


def test_partitions_are_found_and_dead_servers_leave_nothing(guest):
    qcow2(guest)
    (guest.folder / "table").write_bytes(partition_table(2048, 20480))
    text = """
        $nbd -c /dev/nbd1 -f qcow2 --pid-file=/run/pid disk.qcow2
        dd if=table of=/dev/nbd1 oflag=direct
        $nbd -d /dev/nbd1
        ended $(cat /run/pid)
        $nbd -c /dev/nbd1 -f qcow2 --pid-file=/run/pid disk.qcow2
        pid=$(cat /run/pid)
        test $(cat /sys/block/nbd1/nbd1p1/size) = 20480

        # Somebody else's device is not taken away.
        ! $nbd -c /dev/nbd1 -k /run/other -f raw table >second 2>&1
        grep 'Failed to set NBD socket' second

        # A killed server takes the device along, and the next one may have it.
        kill -9 $pid
        ended $pid
        for _ in $(seq 100); do gone nbd1 && break; sleep 0.1; done
        gone nbd1
        ! dd if=/dev/nbd1 of=/dev/null bs=4096 count=1 iflag=direct
        $nbd -c /dev/nbd1 -f qcow2 --pid-file=/run/pid disk.qcow2
        test $(cat /sys/block/nbd1/nbd1p1/size) = 20480

        # A server that is told to stop lets go of the device, with what was written.
        dd if=/dev/urandom of=random bs=1M count=4
        dd if=random of=/dev/nbd1p1 bs=1M oflag=direct
        pid=$(cat /run/pid)
        kill -TERM $pid
        ended $pid
        gone nbd1
        $nbd -v -c /dev/nbd1 -f qcow2 -r disk.qcow2 &
        for _ in $(seq 300); do gone nbd1 || break; sleep 0.1; done
        sleep 1
        cmp -n 4194304 random /dev/nbd1p1
        $nbd -d /dev/nbd1
        wait
    """
    guest.run(script(text), modules=MODULES).check()
    check(guest.folder / "disk.qcow2")


def test_devices_that_are_none(guest):
    text = """
        truncate -s 1M disk.img
        $nbd -c /dev/nosuch -f raw disk.img && exit 1
        $nbd -c /dev/null -f raw disk.img && exit 1
        $nbd -d /dev/nosuch && exit 1
        $nbd -d /dev/nbd3
    """
    said = guest.run(script(text).replace("set -ex", "set -e"), modules=MODULES).check()

    assert said.stdout.splitlines() == [
        "qemu-nbd: Failed to open /dev/nosuch: No such file or directory",
        "qemu-nbd: Failed to set NBD socket",
        "qemu-nbd: Cannot open /dev/nosuch: No such file or directory",
        "/dev/nbd3 disconnected",
    ]
